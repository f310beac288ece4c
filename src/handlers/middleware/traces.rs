//! The trace of a request, if it is sampled: its own span, and the place in the trace that its handler finds in the request.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Instant;

use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{FromRequest, HttpMessage, HttpRequest};

use super::request_id::label;
use crate::error::Error;
use crate::model::{OrderId, TrustedProxies};
use crate::telemetry::{Span, Trace, Traces};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Which requests are traced.
pub struct RequestTraces {
    traces: Arc<Traces>,
    proxies: TrustedProxies,
}

/// The span of a request. One whose client hangs up before its reply ends there. A pointer, for each request has room for it, traced or
/// not.
pub(super) struct RequestSpan(Option<Box<Span>>);

/// The place of a request in its trace; `None`: it is not recorded.
pub(in crate::handlers) struct InTrace(pub(in crate::handlers) Option<Box<Trace>>);

/// What came of a purchase, beside its reply, if that is no error.
pub(in crate::handlers) enum Outcome {
    Accepted(OrderId),
    Refused(&'static str),
}

impl FromRequest for InTrace {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self(request.extensions().get::<Trace>().cloned().map(Box::new))))
    }
}

impl RequestTraces {
    /// `proxies` are believed when they say that a trace is recorded.
    pub fn new(traces: Arc<Traces>, proxies: TrustedProxies) -> Self {
        Self { traces, proxies }
    }

    pub(super) fn begin(&self, request: &ServiceRequest) -> Option<RequestSpan> {
        let mut sent = request.headers().get_all(&TRACEPARENT);
        let parent = sent.next().and_then(|parent| parent.to_str().ok()?.parse().ok());
        // Of two nobody knows which is meant.
        let parent = parent.filter(|_| sent.next().is_none());
        let is_trusted = self.proxies.is_peer(request.peer_addr().map(|peer| peer.ip()));
        let mut span = self.traces.begin(parent, is_trusted, label(request.method()))?;
        let method = match label(request.method()) {
            "other" => "_OTHER",
            method => method,
        };
        span.set("http.request.method", method);
        span.set("url.path", request.path().to_owned());
        span.set("url.scheme", "http");
        request.extensions_mut().insert(span.trace());
        Some(RequestSpan(Some(Box::new(span))))
    }
}

impl RequestSpan {
    /// The head of the reply is ready: that of a stream is all that is waited for.
    pub(super) fn end<B>(mut self, reply: &ServiceResponse<B>, route: &str, id: &HeaderValue) {
        let Some(mut span) = self.0.take() else { return };
        let status = reply.status().as_u16();
        span.rename(format!("{} {route}", label(reply.request().method())));
        span.set("http.route", route.to_owned());
        span.set("http.response.status_code", i64::from(status));
        span.set("seckill.request_id", id.to_str().unwrap_or_default().to_owned());
        let error = reply.response().error();
        let code = error.and_then(|error| error.as_error::<Error>()).map(Error::code);
        let outcome = match reply.response().extensions().get() {
            Some(Outcome::Accepted(order)) => {
                span.set("seckill.order_id", order.to_string());
                Some("accepted")
            }
            Some(Outcome::Refused(code)) => Some(*code),
            None => code,
        };
        if let Some(outcome) = outcome {
            span.set("seckill.outcome", outcome);
        }
        let product = reply.request().path().strip_prefix("/seckill/").and_then(|id| id.parse::<i64>().ok());
        if let Some(product) = product {
            span.set("seckill.product_id", product);
        }
        if status >= 500 {
            let problem = error.map(ToString::to_string).unwrap_or_default();
            span.fail(code.unwrap_or("internal"), problem);
        }
        span.end(Instant::now());
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        if let Some(mut span) = self.0.take() {
            span.fail("hung_up", "the client hung up before the reply");
            span.end(Instant::now());
        }
    }
}
