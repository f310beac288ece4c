//! What happens to every request around its handler.

pub mod cors;
pub mod request_id;
pub mod traces;
