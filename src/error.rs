//! The one error of the services, and its `code`. How HTTP says it, `handlers::problem` knows.

use std::time::Duration;

use crate::db::DbError;
use crate::model::{Denial, OrderStatus};
use crate::queue::PublishError;
use crate::stock::GateError;
use crate::telemetry::metrics;

/// Result of a service.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a request was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// 400 `invalid_request`: the text names the field.
    #[error("{0}")]
    Invalid(String),
    /// 401 `unauthorized`: no token, or one that is not believed.
    #[error("A valid access token is needed.")]
    Unauthorized,
    /// 401 `invalid_credentials`: no such account, or another password.
    #[error("The user name or the password is wrong.")]
    InvalidCredentials,
    /// 403 `forbidden`: the token is good, its role is not enough.
    #[error("This needs an administrator.")]
    Forbidden,
    /// 404 `not_found`: no such path.
    #[error("There is nothing here.")]
    NotFound,
    /// 404 `not_found`: no such path, but there may be one without the slash.
    #[error("There is nothing here; paths do not end with a slash.")]
    NotFoundWithSlash,
    /// 404 `product_not_found`.
    #[error("There is no such product.")]
    ProductNotFound,
    /// 404 `order_not_found`: also for somebody else's.
    #[error("There is no such order of yours.")]
    OrderNotFound,
    /// 404 `payment_not_found`: also for somebody else's.
    #[error("There is no such payment of yours.")]
    PaymentNotFound,
    /// 404 `dead_letter_not_found`.
    #[error("There is no such dead letter, or not among the oldest.")]
    DeadLetterNotFound,
    /// 404 `webhook_not_found`.
    #[error("There is no such webhook.")]
    WebhookNotFound,
    /// 404 `delivery_not_found`: of this webhook.
    #[error("There is no such delivery of this webhook.")]
    DeliveryNotFound,
    /// 409 `too_many_webhooks`: each takes threads of its own.
    #[error("There are {0} webhooks already; delete one first.")]
    TooManyWebhooks(i64),
    /// 400 `invalid_signature`: a callback that is not its provider's, or too old.
    #[error("{0}")]
    InvalidSignature(&'static str),
    /// 409 `payments_off`: nobody takes money here.
    #[error("Payments are not taken here; the shop says how to pay.")]
    PaymentsOff,
    /// 405 `method_not_allowed`.
    #[error("This path does not answer that method.")]
    MethodNotAllowed,
    /// 409 `username_taken`.
    #[error("That user name is taken.")]
    UsernameTaken,
    /// 409 `idempotency_conflict`: the key was used for something else.
    #[error("That Idempotency-Key was used for another request.")]
    IdempotencyConflict,
    /// 409 `stock_below_sold`: so few units were asked for that a promise would break.
    #[error("{least} units are sold or promised already.")]
    StockBelowSold {
        /// The least that the stock can be.
        least: i64,
    },
    /// 412 `precondition_failed`: the product has another revision than `If-Match` names.
    #[error("The product was changed meanwhile: it has revision {revision} now.")]
    PreconditionFailed {
        /// The revision that it has.
        revision: i64,
    },
    /// 409 `still_live`: its sale goes on.
    #[error("The sale goes on; end or pause it first.")]
    StillLive,
    /// 409 `draft`: what nobody has published cannot be bought.
    #[error("The product is a draft; publish it first.")]
    Draft,
    /// 409 `published`: its buyers know it, so it cannot become a draft again.
    #[error("The product is published and stays so; pause or archive it.")]
    Published,
    /// 409 `archived`: an archived product does not change any more.
    #[error("The product is archived.")]
    Archived,
    /// 409 `not_cancellable`: what became of the order stands in the way.
    #[error("The order is {}: it cannot be cancelled.", .0.as_str())]
    NotCancellable(OrderStatus),
    /// 409 `not_payable`: what became of the order stands in the way.
    #[error("The order is {}: it cannot be paid.", .0.as_str())]
    NotPayable(OrderStatus),
    /// 409 with the code of the denial, or 429 `rate_limited`: the buyer gets no unit now.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// 413 `payload_too_large`.
    #[error("The body is larger than 64 KiB.")]
    PayloadTooLarge,
    /// 415 `unsupported_media_type`.
    #[error("The body must be application/json, in UTF-8.")]
    UnsupportedMediaType,
    /// 415 `unsupported_media_type`: compressed in another way.
    #[error("A body may be compressed by gzip only.")]
    UnsupportedEncoding,
    /// 429 `rate_limited`: too many of these; come again after that time.
    #[error("Too many tries.")]
    RateLimited(Limited, Duration),
    /// 503 `unavailable`: ask again. The text is for the log.
    #[error("{0}")]
    Unavailable(String),
    /// 503 `unavailable`: a row that this needs cannot be read. The text is for the log, where the row was named.
    #[error("{0}")]
    Unreadable(String),
    /// 500 `internal`: a defect. The text is for the log.
    #[error("{0}")]
    Internal(String),
}

/// What somebody has done too often. Tries to buy have a denial of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Looks at orders and payments.
    Reads,
    /// Registrations and log-ins.
    LogIns,
    /// Passwords that wait to be hashed.
    Passwords,
}

impl Limited {
    /// The name of the limit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::LogIns => "log-ins",
            Self::Passwords => "passwords",
        }
    }
}

impl Error {
    /// Stable, machine-readable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_request",
            Self::Unauthorized => "unauthorized",
            Self::InvalidCredentials => "invalid_credentials",
            Self::Forbidden => "forbidden",
            Self::NotFound | Self::NotFoundWithSlash => "not_found",
            Self::ProductNotFound => "product_not_found",
            Self::OrderNotFound => "order_not_found",
            Self::PaymentNotFound => "payment_not_found",
            Self::DeadLetterNotFound => "dead_letter_not_found",
            Self::WebhookNotFound => "webhook_not_found",
            Self::DeliveryNotFound => "delivery_not_found",
            Self::TooManyWebhooks(_) => "too_many_webhooks",
            Self::InvalidSignature(_) => "invalid_signature",
            Self::PaymentsOff => "payments_off",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UsernameTaken => "username_taken",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::StockBelowSold { .. } => "stock_below_sold",
            Self::PreconditionFailed { .. } => "precondition_failed",
            Self::StillLive => "still_live",
            Self::Draft => "draft",
            Self::Published => "published",
            Self::Archived => "archived",
            Self::NotCancellable(_) => "not_cancellable",
            Self::NotPayable(_) => "not_payable",
            Self::Denied(denial) => denial.code(),
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType | Self::UnsupportedEncoding => "unsupported_media_type",
            Self::RateLimited(..) => "rate_limited",
            Self::Unavailable(_) | Self::Unreadable(_) => "unavailable",
            Self::Internal(_) => "internal",
        }
    }
}

impl From<DbError> for Error {
    fn from(error: DbError) -> Self {
        metrics::database_error(error.class());
        match error {
            DbError::Unreadable { .. } => Self::Unreadable(error.to_string()),
            error if error.is_transient() => Self::Unavailable(error.to_string()),
            error => Self::Internal(error.to_string()),
        }
    }
}

impl From<GateError> for Error {
    /// Whatever a gate or its server says is no defect of this process, and passes: the buyer comes again.
    fn from(error: GateError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<garde::Report> for Error {
    /// The first field that is wrong, and why.
    fn from(report: garde::Report) -> Self {
        let first = report.iter().next().map(|(field, problem)| format!("{field}: {problem}"));
        Self::Invalid(first.unwrap_or_default())
    }
}

impl From<PublishError> for Error {
    fn from(error: PublishError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
