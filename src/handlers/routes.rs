//! Every path of the API, and the methods it answers.

use actix_web::guard::GuardContext;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{Handler, HttpRequest, HttpResponse, Resource, ResponseError, Scope, guard, web};

use super::extract::body::BODY_MAX_BYTES;
use super::middleware::request_id::Route;
use super::{
    accounts, events, health, merchant, openapi, orders, pages, payments, products, purchases, shop, test_payments,
    webhooks,
};
use crate::error::{Error, Result};

/// What begins so is for merchants. Of other paths, what follows `Path::for_merchants`.
const OF_MERCHANTS: [&str; 3] = ["/admin/", "/console", "/metrics"];

/// Whom a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Buyers and administrators: there is one port.
    Everybody,
    /// Nothing of a merchant is there.
    Buyers,
}

/// Adds every path of the API that `audience` may know.
pub fn routes(config: &mut web::ServiceConfig, audience: Audience) {
    config
        .app_data(web::PayloadConfig::new(BODY_MAX_BYTES))
        // First, for paths are tried in this order.
        .service(frequent("/seckill/{id}", |method| *method == Method::POST, purchases::buy))
        .service(frequent("/products/{id}", |method| matches!(*method, Method::GET | Method::HEAD), products::get));
    for resource in api_paths().into_iter().chain(page_paths()).filter_map(|path| path.resource(audience)) {
        config.service(resource);
    }
    config.default_service(web::to(nowhere));
}

/// What `openapi` describes. Tried in this order.
fn api_paths() -> Vec<Path> {
    vec![
        Path::new("/seckill/{id}").allow(Method::POST),
        Path::new("/register").on(Method::POST, accounts::register),
        Path::new("/login").on(Method::POST, accounts::log_in),
        Path::new("/logout").on(Method::POST, accounts::log_out),
        Path::new("/me/password").on(Method::POST, accounts::change_password),
        Path::new("/me").on(Method::GET, accounts::me),
        Path::new("/products").on(Method::GET, products::list).for_merchants().on(Method::POST, products::create),
        Path::new("/products/{id}")
            .allow(Method::GET)
            .allow(Method::HEAD)
            .for_merchants()
            .on(Method::PATCH, products::patch),
        Path::new("/products/{id}/restock").for_merchants().on(Method::POST, products::restock),
        Path::new("/orders").on(Method::GET, orders::list),
        Path::new("/orders/{id}").on(Method::GET, orders::get),
        Path::new("/orders/{id}/events").on(Method::GET, events::of_order),
        Path::new("/events").on(Method::GET, events::of_products),
        Path::new("/time").on(Method::GET, shop::time),
        Path::new("/orders/{id}/cancel").on(Method::POST, orders::cancel),
        Path::new("/orders/{id}/payments").on(Method::POST, payments::start).on(Method::GET, payments::of_order),
        Path::new("/payments/webhooks/{provider}").on(Method::POST, payments::callback),
        Path::new("/payments/{id}").on(Method::GET, payments::get),
        Path::new("/admin/orders").on(Method::GET, merchant::orders),
        Path::new("/admin/orders.csv").on(Method::GET, merchant::export),
        Path::new("/admin/orders/{id}/cancel").on(Method::POST, orders::cancel_as_admin),
        Path::new("/admin/orders/{id}/mark-paid").on(Method::POST, orders::mark_paid),
        Path::new("/admin/orders/{id}/history").on(Method::GET, orders::history),
        Path::new("/admin/products").on(Method::GET, products::list_all),
        Path::new("/admin/products/{id}").on(Method::GET, products::get_any),
        Path::new("/admin/products/{id}/audit").on(Method::GET, products::audit),
        Path::new("/admin/products/{id}/summary").on(Method::GET, merchant::summary),
        Path::new("/admin/products/{id}/archive").on(Method::POST, products::archive),
        Path::new("/admin/dead-letters").on(Method::GET, merchant::dead_letters),
        Path::new("/admin/dead-letters/{id}/replay").on(Method::POST, merchant::replay),
        Path::new("/admin/dead-letters/{id}").on(Method::DELETE, merchant::delete_dead_letter),
        Path::new("/admin/live").on(Method::GET, merchant::live),
        Path::new("/admin/check").on(Method::GET, merchant::check),
        Path::new("/admin/log").on(Method::GET, products::log),
        Path::new("/openapi.json").on(Method::GET, openapi::document),
        Path::new("/metrics").on(Method::GET, health::metrics),
        Path::new("/healthz").on(Method::GET, health::alive),
        Path::new("/readyz").on(Method::GET, health::ready),
        Path::new("/shop/settings").on(Method::GET, shop::settings),
        Path::new("/admin/webhooks").on(Method::GET, webhooks::list).on(Method::POST, webhooks::create),
        Path::new("/admin/webhooks/{id}")
            .on(Method::GET, webhooks::get)
            .on(Method::PATCH, webhooks::patch)
            .on(Method::DELETE, webhooks::delete),
        Path::new("/admin/webhooks/{id}/test").on(Method::POST, webhooks::test),
        Path::new("/admin/webhooks/{id}/rotate-secret").on(Method::POST, webhooks::rotate_secret),
        Path::new("/admin/webhooks/{id}/deliveries").on(Method::GET, webhooks::deliveries),
        Path::new("/admin/webhooks/{id}/deliveries/{delivery_id}/retry").on(Method::POST, webhooks::retry),
    ]
}

/// What people look at.
fn page_paths() -> Vec<Path> {
    vec![
        Path::new("/pay/test/{id}").on(Method::GET, test_payments::show).on(Method::POST, test_payments::submit),
        Path::new("/").on(Method::GET, pages::front_door),
        Path::new("/assets/{hash}/{path:.*}").on(Method::GET, pages::asset),
        Path::new("/shop").on(Method::GET, pages::shop),
        Path::new("/shop/{rest:.*}").on(Method::GET, pages::shop),
        Path::new("/docs").on(Method::GET, openapi::front_page),
        Path::new("/docs/{path:.*}").on(Method::GET, openapi::page_file),
        Path::new("/console").on(Method::GET, pages::console),
        Path::new("/console/{rest:.*}").on(Method::GET, pages::console),
    ]
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
    pattern: &'static str,
    answers: Vec<Answer>,
    /// Whether those that are added from now on are for merchants.
    for_merchants: bool,
}

struct Answer {
    methods: Vec<Method>,
    /// `None`: it is answered elsewhere.
    route: Option<actix_web::Route>,
    for_merchants: bool,
}

impl Path {
    fn new(pattern: &'static str) -> Self {
        let for_merchants = OF_MERCHANTS.iter().any(|start| pattern.starts_with(start));
        Self { pattern, answers: Vec::new(), for_merchants }
    }

    /// What follows is for merchants: it is at their port only, if they have one.
    fn for_merchants(self) -> Self {
        Self { for_merchants: true, ..self }
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
        let methods = if is_get { vec![method, Method::HEAD] } else { vec![method] };
        let route = Some(web::route().guard(guard).to(handler));
        self.answers.push(Answer { methods, route, for_merchants: self.for_merchants });
        self
    }

    fn allow(mut self, method: Method) -> Self {
        self.answers.push(Answer { methods: vec![method], route: None, for_merchants: self.for_merchants });
        self
    }

    /// OPTIONS is answered, and every other method refused, with a list of those that are answered. `None`: none is.
    fn resource(self, audience: Audience) -> Option<Resource> {
        let is_known = |answer: &Answer| audience == Audience::Everybody || !answer.for_merchants;
        let answers: Vec<_> = self.answers.into_iter().filter(is_known).collect();
        if answers.is_empty() {
            return None;
        }
        let methods = answers.iter().flat_map(|answer| &answer.methods).chain([&Method::OPTIONS]);
        let names: Vec<&str> = methods.map(Method::as_str).collect();
        let allowed = HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static(""));
        let routes = answers.into_iter().filter_map(|answer| answer.route);
        let resource = routes.fold(web::resource(self.pattern), Resource::route);
        Some(resource.app_data(Route(self.pattern)).default_service(web::to(move |method: Method| {
            let mut reply: HttpResponse = match method {
                Method::OPTIONS => HttpResponse::NoContent().finish(),
                _ => Error::MethodNotAllowed.error_response(),
            };
            reply.headers_mut().insert(header::ALLOW, allowed.clone());
            async move { reply }
        })))
    }
}

async fn nowhere(request: HttpRequest) -> Result<HttpResponse> {
    let is_with_slash = request.path().len() > 1 && request.path().ends_with('/');
    Err(if is_with_slash { Error::NotFoundWithSlash } else { Error::NotFound })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_openapi_document_has_every_path_and_method_and_no_other() {
        let document: Value = serde_json::from_str(&super::super::openapi::render()).unwrap();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            described.extend(item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
        }
        let mut answered = BTreeSet::new();
        for path in api_paths() {
            // Whatever answers GET answers HEAD: said once, for all.
            let methods = path.answers.iter().flat_map(|answer| &answer.methods);
            let methods = methods.filter(|method| **method != Method::HEAD);
            answered.extend(methods.map(|method| (method.to_string(), path.pattern.to_owned())));
        }
        assert_eq!(described, answered);
    }
}
