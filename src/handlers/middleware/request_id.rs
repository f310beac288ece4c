//! What every reply has: `X-Request-Id`, which is also in the log of what is our fault, `Cache-Control`, and the headers for
//! pages of other origins. Every reply is counted, and a request that is sampled has its span.

use std::rc::Rc;
use std::time::Instant;

use actix_web::Error as ActixError;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use tracing::Instrument;
use uuid::Uuid;

use super::cors::Cors;
use super::traces::RequestTraces;
use crate::telemetry::RequestMetrics;

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CALLERS_ID_MAX_BYTES: usize = 128;

/// The path of a resource, as it was registered.
pub(in crate::handlers) struct Route(pub(in crate::handlers) &'static str);

/// Middleware: takes the caller's id if it sent a sane one, else makes one; counts the request.
pub async fn with_request_id(
    cors: Option<Rc<Cors>>,
    traces: Option<Rc<RequestTraces>>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, ActixError> {
    let id = request.headers().get(&X_REQUEST_ID).filter(|id| is_sane(id)).cloned().unwrap_or_else(new_id);
    let origin = cors.as_ref().map(|cors| cors.origin(request.headers()));
    let span = traces.as_ref().and_then(|traces| traces.begin(&request));
    let begun = Instant::now();
    let mut reply = if tracing::enabled!(tracing::Level::DEBUG) {
        Box::pin(traced(request, next, &id)).await?
    } else {
        next.call(request).await?
    };
    let route = reply.request().app_data::<Route>().map_or("none", |route| route.0);
    if let Some(metrics) = reply.request().app_data::<RequestMetrics>() {
        metrics.count(label(reply.request().method()), route, reply.status().as_u16(), begun.elapsed());
    }
    if let Some(span) = span {
        span.end(&reply, route, &id);
    }
    if reply.status().is_server_error() {
        let cause = reply.response().error().map(ToString::to_string).unwrap_or_default();
        let (method, path) = (reply.request().method(), reply.request().path());
        let (id, status) = (id.to_str().unwrap_or_default(), reply.status().as_u16());
        if status == 503 {
            tracing::debug!(request.id = id, %method, path, status, cause, "Not available");
        } else {
            tracing::error!(request.id = id, %method, path, status, cause, "Request failed");
        }
    }
    if let Some(origin) = origin {
        Cors::allow(origin, &mut reply);
    }
    let headers = reply.headers_mut();
    // Most depends on who asks; what does not says so itself.
    if let Some(own) = headers.insert(CACHE_CONTROL, NO_STORE).next() {
        headers.insert(CACHE_CONTROL, own);
    }
    headers.insert(X_REQUEST_ID.clone(), id);
    Ok(reply)
}

/// In a span of its own, which what is logged meanwhile belongs to.
async fn traced<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
    id: &HeaderValue,
) -> Result<ServiceResponse<B>, ActixError> {
    let id = id.to_str().unwrap_or_default();
    let span = tracing::debug_span!("request", request.id = id, method = %request.method(), path = request.path());
    let reply = next.call(request).instrument(span.clone()).await?;
    tracing::debug!(parent: &span, status = reply.status().as_u16(), "Answered");
    Ok(reply)
}

/// The method as a label; a stranger's invention must not become one.
pub(super) fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn is_sane(id: &HeaderValue) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=CALLERS_ID_MAX_BYTES).contains(&id.len()) && id.as_bytes().iter().all(allowed)
}

fn new_id() -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    HeaderValue::from_str(Uuid::new_v4().hyphenated().encode_lower(&mut buffer))
        .unwrap_or_else(|_| HeaderValue::from_static("none"))
}
