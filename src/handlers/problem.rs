//! An error as HTTP says it: status, headers, and a problem document (RFC 9457).

use std::sync::LazyLock;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;
use crate::model::{Denial, OrderId, OrderStatus, Timestamp};

/// After a 503 with nothing better to say.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a client is told: never the cause of a 5xx.
fn detail(error: &Error) -> String {
    match error {
        Error::Unavailable(_) | Error::Unreadable(_) => "Not possible right now; ask again in a moment.".to_owned(),
        Error::Internal(_) => "Something went wrong here; the X-Request-Id of this reply finds it.".to_owned(),
        other => other.to_string(),
    }
}

fn retry_after(error: &Error) -> Option<Duration> {
    match error {
        Error::RateLimited(_, wait) | Error::Denied(Denial::RateLimited(wait)) => Some(*wait),
        Error::Unavailable(_) | Error::Unreadable(_) => Some(RETRY_AFTER),
        _ => None,
    }
}

/// draft-ietf-httpapi-ratelimit-headers.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The limit that was reached.
fn limit(error: &Error) -> Option<&'static str> {
    match error {
        Error::RateLimited(limited, _) => Some(limited.as_str()),
        Error::Denied(Denial::RateLimited(_)) => Some("purchases"),
        _ => None,
    }
}

/// RFC 9457.
#[derive(Serialize, ToSchema)]
pub(super) struct Problem {
    #[schema(example = "about:blank")]
    r#type: &'static str,
    #[schema(required)]
    title: Option<&'static str>,
    status: u16,
    /// Stable, for programs.
    code: &'static str,
    /// For people.
    detail: String,
    /// When the sale begins: `not_started`.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    starts_at: Option<Timestamp>,
    /// The order that the buyer has: `already_purchased`.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<OrderId>,
    /// The least that the stock can be: `stock_below_sold`.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    least: Option<i64>,
    /// The revision that the product has: `precondition_failed`.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    /// Units that are left: `not_enough_left`; of the share of the address: `address_limit`.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<i64>,
    /// Where the order stands: `not_cancellable`, `not_payable`.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    order_status: Option<OrderStatus>,
}

impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Invalid(_) | Self::InvalidSignature(_) | Self::Denied(Denial::TooMany(_)) => StatusCode::BAD_REQUEST,
            Self::Unauthorized | Self::InvalidCredentials => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound
            | Self::NotFoundWithSlash
            | Self::ProductNotFound
            | Self::OrderNotFound
            | Self::PaymentNotFound
            | Self::DeadLetterNotFound
            | Self::WebhookNotFound
            | Self::DeliveryNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RateLimited(..) | Self::Denied(Denial::RateLimited(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::UsernameTaken
            | Self::IdempotencyConflict
            | Self::StockBelowSold { .. }
            | Self::StillLive
            | Self::Draft
            | Self::Published
            | Self::Archived
            | Self::NotCancellable(_)
            | Self::NotPayable(_)
            | Self::PaymentsOff
            | Self::TooManyWebhooks(_)
            | Self::Denied(_) => StatusCode::CONFLICT,
            Self::PreconditionFailed { .. } => StatusCode::PRECONDITION_FAILED,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType | Self::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unavailable(_) | Self::Unreadable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        if let Self::Denied(Denial::SoldOut) = self {
            return sold_out();
        }
        let status = self.status_code();
        let mut reply = HttpResponseBuilder::new(status);
        if let Some(wait) = retry_after(self) {
            // Whole seconds, rounded up: who waits that long has waited long enough.
            let seconds = wait.as_millis().div_ceil(1000).max(1) as u64;
            reply.insert_header((header::RETRY_AFTER, HeaderValue::from(seconds)));
            if let Some(limit) = limit(self) {
                reply.insert_header((RATE_LIMIT, format!("\"{limit}\";r=0;t={seconds}")));
            }
        }
        if let Self::UnsupportedEncoding = self {
            reply.insert_header((header::ACCEPT_ENCODING, "gzip"));
        }
        if status == StatusCode::UNAUTHORIZED {
            reply.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        reply.insert_header((header::CONTENT_TYPE, PROBLEM_JSON)).body(self.problem())
    }
}

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The most frequent one is rendered once, and needs nothing of what others need; a static body needs no reference count.
fn sold_out() -> HttpResponse {
    HttpResponse::Conflict().insert_header((header::CONTENT_TYPE, PROBLEM_JSON)).body(Bytes::from_static(&SOLD_OUT))
}

static SOLD_OUT: LazyLock<Vec<u8>> = LazyLock::new(|| Error::Denied(Denial::SoldOut).problem());

impl Error {
    /// The document.
    pub(super) fn problem(&self) -> Vec<u8> {
        let status = self.status_code();
        let mut problem = Problem {
            r#type: "about:blank",
            title: status.canonical_reason(),
            status: status.as_u16(),
            code: self.code(),
            detail: detail(self),
            starts_at: None,
            order_id: None,
            least: None,
            revision: None,
            remaining: None,
            order_status: None,
        };
        match self {
            Self::Denied(Denial::NotStarted(starts_at)) => problem.starts_at = Some(*starts_at),
            Self::Denied(Denial::AlreadyPurchased(order_id)) => problem.order_id = Some(*order_id),
            Self::Denied(Denial::NotEnoughLeft(remaining) | Denial::AddressLimit(remaining)) => {
                problem.remaining = Some(*remaining)
            }
            Self::StockBelowSold { least } => problem.least = Some(*least),
            Self::PreconditionFailed { revision } => problem.revision = Some(*revision),
            Self::NotCancellable(status) | Self::NotPayable(status) => problem.order_status = Some(*status),
            _ => {}
        }
        serde_json::to_vec(&problem).unwrap_or_default()
    }
}
