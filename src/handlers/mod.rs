//! HTTP: extract, one service call, reply. No SQL, Redis or AMQP.

mod accounts;
mod events;
mod extract;
mod health;
mod lists;
mod merchant;
mod middleware;
mod openapi;
mod orders;
mod pages;
mod payments;
mod problem;
mod products;
mod purchases;
mod rendered;
mod routes;
mod shop;
mod state;
mod test_payments;
mod webhooks;

pub use self::extract::body::{Body, UnreadBody};
pub use self::extract::{Admin, AuthenticatedUser, ClientAddress, Params, PathId, SignedIn};
pub use self::middleware::cors::Cors;
pub use self::middleware::request_id::with_request_id;
pub use self::middleware::traces::RequestTraces;
pub use self::openapi::render as openapi;
pub use self::routes::{Audience, routes};
pub use self::state::AppState;
