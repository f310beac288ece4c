//! seckill: a flash-sale system.

pub mod config;
pub mod db;
pub mod model;
pub mod stock;
