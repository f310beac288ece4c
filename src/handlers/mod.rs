//! HTTP: extract, one service call, reply. No SQL, Redis or AMQP.

mod accounts;
mod catalog;
mod extract;
mod health;
mod orders;
mod purchases;
mod request_id;

use actix_web::{Resource, Route, web};

use crate::error::Error;

pub use extract::{Admin, Body, Caller, Params, PathId};
pub use request_id::{QuietRootSpan, with_request_id};

/// Adds every path of the API.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .app_data(web::PayloadConfig::new(extract::BODY_MAX_BYTES))
        .service(path("/register", [web::post().to(accounts::register)]))
        .service(path("/login", [web::post().to(accounts::log_in)]))
        .service(path("/me", [web::get().to(accounts::me)]))
        .service(path("/products", [web::get().to(catalog::list), web::post().to(catalog::create)]))
        .service(path("/products/{id}", [web::get().to(catalog::get), web::patch().to(catalog::patch)]))
        .service(path("/products/{id}/restock", [web::post().to(catalog::restock)]))
        .service(path("/seckill/{id}", [web::post().to(purchases::buy)]))
        .service(path("/orders", [web::get().to(orders::list)]))
        .service(path("/orders/{id}", [web::get().to(orders::get)]))
        .service(path("/healthz", [web::get().to(health::alive)]))
        .service(path("/readyz", [web::get().to(health::ready)]))
        .default_service(web::to(|| async { Err::<String, _>(Error::NotFound) }));
}

/// A path that answers these methods and no other.
fn path<const N: usize>(pattern: &str, routes: [Route; N]) -> Resource {
    routes
        .into_iter()
        .fold(web::resource(pattern), Resource::route)
        .default_service(web::to(|| async { Err::<String, _>(Error::MethodNotAllowed) }))
}
