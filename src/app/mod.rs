//! The composition root: builds clients, services, routes and background tasks, and takes them down again.

mod clients;
mod error;
mod first_admin;
mod running;
mod server;
mod tasks;

pub use self::clients::{membership, migrate, replay};
pub use self::error::StartError;
pub use self::running::RunningApp;
