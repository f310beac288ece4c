//! HTTP: extract, one service call, reply. No SQL, Redis or AMQP.

mod accounts;
mod catalog;
mod extract;
mod health;
mod orders;
mod purchases;
mod request_id;

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{Handler, HttpResponse, Resource, ResponseError, web};

use self::request_id::Route;
use crate::error::Error;

pub use extract::{Admin, Body, Caller, ClientAddress, Params, PathId, TrustedProxies, UnreadBody};
pub use request_id::with_request_id;

/// Adds every path of the API.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .app_data(web::PayloadConfig::new(extract::BODY_MAX_BYTES))
        // First, for paths are tried in this order, and a scope, for `/seckill/{id}` would be a regular expression.
        .service(purchases::scope())
        .service(Path::new("/seckill/{id}").allow(Method::POST).resource())
        .service(Path::new("/register").on(Method::POST, accounts::register).resource())
        .service(Path::new("/login").on(Method::POST, accounts::log_in).resource())
        .service(Path::new("/me").on(Method::GET, accounts::me).resource())
        .service(Path::new("/products").on(Method::GET, catalog::list).on(Method::POST, catalog::create).resource())
        .service(Path::new("/products/{id}").on(Method::GET, catalog::get).on(Method::PATCH, catalog::patch).resource())
        .service(Path::new("/products/{id}/restock").on(Method::POST, catalog::restock).resource())
        .service(Path::new("/orders").on(Method::GET, orders::list).resource())
        .service(Path::new("/orders/{id}").on(Method::GET, orders::get).resource())
        .service(Path::new("/admin/products/{id}/audit").on(Method::GET, catalog::audit).resource())
        .service(Path::new("/metrics").on(Method::GET, health::metrics).resource())
        .service(Path::new("/healthz").on(Method::GET, health::alive).resource())
        .service(Path::new("/readyz").on(Method::GET, health::ready).resource())
        .default_service(web::to(|| async { Err::<String, _>(Error::NotFound) }));
}

/// A path, and the methods it answers.
struct Path {
    resource: Resource,
    methods: Vec<Method>,
}

impl Path {
    fn new(pattern: &'static str) -> Self {
        Self { resource: web::resource(pattern).app_data(Route(pattern)), methods: Vec::new() }
    }

    fn on<F, Args>(mut self, method: Method, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: actix_web::FromRequest + 'static,
        F::Output: actix_web::Responder + 'static,
    {
        self.resource = self.resource.route(web::method(method.clone()).to(handler));
        self.allow(method)
    }

    fn allow(mut self, method: Method) -> Self {
        self.methods.push(method);
        self
    }

    /// Every other method is refused with a list of these.
    fn resource(self) -> Resource {
        let names: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        let allowed = HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static(""));
        self.resource.default_service(web::to(move || {
            let mut refusal: HttpResponse = Error::MethodNotAllowed.error_response();
            refusal.headers_mut().insert(header::ALLOW, allowed.clone());
            async move { refusal }
        }))
    }
}
