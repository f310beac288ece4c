//! Which web pages of other origins may use the API (`server.cors_origins`).

use actix_web::dev::ServiceResponse;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderValue};

const EXPOSED: HeaderValue = HeaderValue::from_static("Location, Retry-After, RateLimit, X-Request-Id, ETag");
const ALLOWED: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, X-Request-Id",
);
const REMEMBERED: HeaderValue = HeaderValue::from_static("600");
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

/// See the module.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Vec<HeaderValue>,
}

impl Cors {
    /// For pages of these origins; none if there are none.
    pub fn new(origins: &[String]) -> Option<Self> {
        let origins: Vec<_> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
        (!origins.is_empty()).then_some(Self { origins })
    }

    /// The origin of a request, if it is one of these.
    pub(in crate::handlers) fn origin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        request.get(header::ORIGIN).filter(|origin| self.origins.contains(origin)).cloned()
    }

    /// Tells the browser what it may do with a reply.
    pub(in crate::handlers) fn allow<B>(origin: Option<HeaderValue>, reply: &mut ServiceResponse<B>) {
        let asked = reply.request().headers();
        let is_preflight =
            *reply.request().method() == Method::OPTIONS && asked.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let headers = reply.headers_mut();
        headers.append(header::VARY, ORIGIN);
        let Some(origin) = origin else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if is_preflight {
            if let Some(methods) = headers.get(header::ALLOW).cloned() {
                headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            }
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED);
        }
    }
}
