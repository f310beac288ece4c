//! Every path of the API, and the methods it answers.

use actix_web::guard::GuardContext;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{Handler, HttpRequest, HttpResponse, Resource, ResponseError, Scope, guard, web};

use super::extract::body::BODY_MAX_BYTES;
use super::middleware::request_id::Route;
use super::{
    accounts, events, health, merchant, orders, pages, payments, products, purchases, shop, test_payments, webhooks,
};
use crate::error::{Error, Result};

/// Adds every path of the API.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .app_data(web::PayloadConfig::new(BODY_MAX_BYTES))
        // First, for paths are tried in this order.
        .service(frequent("/seckill/{id}", |method| *method == Method::POST, purchases::buy))
        .service(frequent("/products/{id}", |method| matches!(*method, Method::GET | Method::HEAD), products::get))
        .service(Path::new("/seckill/{id}").allow(Method::POST).resource())
        .service(Path::new("/register").on(Method::POST, accounts::register).resource())
        .service(Path::new("/login").on(Method::POST, accounts::log_in).resource())
        .service(Path::new("/logout").on(Method::POST, accounts::log_out).resource())
        .service(Path::new("/me/password").on(Method::POST, accounts::change_password).resource())
        .service(Path::new("/me").on(Method::GET, accounts::me).resource())
        .service(Path::new("/products").on(Method::GET, products::list).on(Method::POST, products::create).resource())
        .service(
            Path::new("/products/{id}")
                .allow(Method::GET)
                .allow(Method::HEAD)
                .on(Method::PATCH, products::patch)
                .resource(),
        )
        .service(Path::new("/products/{id}/restock").on(Method::POST, products::restock).resource())
        .service(Path::new("/orders").on(Method::GET, orders::list).resource())
        .service(Path::new("/orders/{id}").on(Method::GET, orders::get).resource())
        .service(Path::new("/orders/{id}/events").on(Method::GET, events::of_order).resource())
        .service(Path::new("/events").on(Method::GET, events::of_products).resource())
        .service(Path::new("/time").on(Method::GET, shop::time).resource())
        .service(Path::new("/orders/{id}/cancel").on(Method::POST, orders::cancel).resource())
        .service(
            Path::new("/orders/{id}/payments")
                .on(Method::POST, payments::start)
                .on(Method::GET, payments::of_order)
                .resource(),
        )
        .service(Path::new("/payments/webhooks/{provider}").on(Method::POST, payments::callback).resource())
        .service(Path::new("/payments/{id}").on(Method::GET, payments::get).resource())
        .service(
            Path::new("/pay/test/{id}")
                .on(Method::GET, test_payments::show)
                .on(Method::POST, test_payments::submit)
                .resource(),
        )
        .service(Path::new("/admin/orders").on(Method::GET, merchant::orders).resource())
        .service(Path::new("/admin/orders.csv").on(Method::GET, merchant::export).resource())
        .service(Path::new("/admin/orders/{id}/cancel").on(Method::POST, orders::cancel_as_admin).resource())
        .service(Path::new("/admin/orders/{id}/mark-paid").on(Method::POST, orders::mark_paid).resource())
        .service(Path::new("/admin/orders/{id}/history").on(Method::GET, orders::history).resource())
        .service(Path::new("/admin/products/{id}/audit").on(Method::GET, products::audit).resource())
        .service(Path::new("/admin/products/{id}/summary").on(Method::GET, merchant::summary).resource())
        .service(Path::new("/admin/products/{id}/archive").on(Method::POST, products::archive).resource())
        .service(Path::new("/admin/dead-letters").on(Method::GET, merchant::dead_letters).resource())
        .service(Path::new("/admin/dead-letters/{id}/replay").on(Method::POST, merchant::replay).resource())
        .service(Path::new("/admin/dead-letters/{id}").on(Method::DELETE, merchant::delete_dead_letter).resource())
        .service(Path::new("/admin/live").on(Method::GET, merchant::live).resource())
        .service(Path::new("/admin/check").on(Method::GET, merchant::check).resource())
        .service(Path::new("/admin/log").on(Method::GET, products::log).resource())
        .configure(webhook_routes)
        .configure(page_routes)
        .service(Path::new("/metrics").on(Method::GET, health::metrics).resource())
        .service(Path::new("/healthz").on(Method::GET, health::alive).resource())
        .service(Path::new("/readyz").on(Method::GET, health::ready).resource())
        .default_service(web::to(nowhere));
}

fn page_routes(config: &mut web::ServiceConfig) {
    config
        .service(Path::new("/").on(Method::GET, pages::front_door).resource())
        .service(Path::new("/assets/{hash}/{path:.*}").on(Method::GET, pages::asset).resource())
        .service(Path::new("/shop/settings").on(Method::GET, shop::settings).resource())
        .service(Path::new("/shop").on(Method::GET, pages::shop).resource())
        .service(Path::new("/shop/{rest:.*}").on(Method::GET, pages::shop).resource())
        .service(Path::new("/console").on(Method::GET, pages::console).resource())
        .service(Path::new("/console/{rest:.*}").on(Method::GET, pages::console).resource());
}

fn webhook_routes(config: &mut web::ServiceConfig) {
    config
        .service(
            Path::new("/admin/webhooks").on(Method::GET, webhooks::list).on(Method::POST, webhooks::create).resource(),
        )
        .service(
            Path::new("/admin/webhooks/{id}")
                .on(Method::GET, webhooks::get)
                .on(Method::PATCH, webhooks::patch)
                .on(Method::DELETE, webhooks::delete)
                .resource(),
        )
        .service(Path::new("/admin/webhooks/{id}/test").on(Method::POST, webhooks::test).resource())
        .service(Path::new("/admin/webhooks/{id}/rotate-secret").on(Method::POST, webhooks::rotate_secret).resource())
        .service(Path::new("/admin/webhooks/{id}/deliveries").on(Method::GET, webhooks::deliveries).resource())
        .service(
            Path::new("/admin/webhooks/{id}/deliveries/{delivery}/retry").on(Method::POST, webhooks::retry).resource(),
        );
}

/// A path that ends with an id and is asked for so often that it is found by comparison: every other path with an id in it
/// is a regular expression. For the methods of `asks` only.
fn frequent<F, Args>(pattern: &'static str, asks: fn(&Method) -> bool, handler: F) -> Scope
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    let before = pattern.trim_end_matches("{id}");
    let is_meant = move |request: &GuardContext<'_>| {
        let id = request.head().uri.path().strip_prefix(before);
        asks(&request.head().method) && id.is_some_and(|id| !id.is_empty() && !id.contains('/'))
    };
    // A scope, for a resource would be a pattern.
    let scope = web::scope(before.trim_end_matches('/')).guard(guard::fn_guard(is_meant));
    scope.app_data(Route(pattern)).default_service(web::to(handler))
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
        let is_get = method == Method::GET;
        let mut guard = guard::Any(guard::Method(method.clone()));
        if is_get {
            // The server leaves the body out of its reply.
            guard = guard.or(guard::Head());
        }
        self.resource = self.resource.route(web::route().guard(guard).to(handler));
        let path = self.allow(method);
        if is_get { path.allow(Method::HEAD) } else { path }
    }

    fn allow(mut self, method: Method) -> Self {
        self.methods.push(method);
        self
    }

    /// OPTIONS is answered, and every other method refused, with a list of these.
    fn resource(self) -> Resource {
        let names: Vec<&str> = self.methods.iter().chain([&Method::OPTIONS]).map(Method::as_str).collect();
        let allowed = HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static(""));
        self.resource.default_service(web::to(move |method: Method| {
            let mut reply: HttpResponse = match method {
                Method::OPTIONS => HttpResponse::NoContent().finish(),
                _ => Error::MethodNotAllowed.error_response(),
            };
            reply.headers_mut().insert(header::ALLOW, allowed.clone());
            async move { reply }
        }))
    }
}

async fn nowhere(request: HttpRequest) -> Result<HttpResponse> {
    let is_with_slash = request.path().len() > 1 && request.path().ends_with('/');
    Err(if is_with_slash { Error::NotFoundWithSlash } else { Error::NotFound })
}
