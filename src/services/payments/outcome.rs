//! What becomes of a callback, and who is told of it: the metrics always, the log where a person must do something.

use super::rules::Owed;
use crate::model::{PaymentStatus, ProductId, ProviderName, Purchase};
use crate::telemetry::{LogThrottle, Metrics};

/// Lines about money that must be given back.
static OWED: LogThrottle = LogThrottle::each_second();
/// Lines about callbacks of payments that are not known.
static UNKNOWN: LogThrottle = LogThrottle::each_second();

/// What became of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The order is paid.
    Paid,
    /// The order was dead, and is paid now.
    Revived,
    /// The payment failed.
    Failed,
    /// The money was given back.
    Refunded,
    /// The money must be given back.
    RefundDue(Owed),
    /// It was known.
    Repeated,
    /// It was new, and changed nothing.
    Unchanged,
    /// There is no such payment.
    Unknown,
}

/// A dead order that a late payment may revive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeadOrder {
    pub(super) product: ProductId,
    pub(super) purchase: Purchase,
}

impl Outcome {
    /// For the metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Paid => "paid",
            Self::Revived => "revived",
            Self::Failed => "failed",
            Self::Refunded => "refunded",
            Self::RefundDue(_) => "refund_due",
            Self::Repeated => "repeated",
            Self::Unchanged => "unchanged",
            Self::Unknown => "unknown",
        }
    }

    /// What the payment has become.
    fn status(self) -> Option<PaymentStatus> {
        match self {
            Self::Paid | Self::Revived => Some(PaymentStatus::Succeeded),
            Self::Failed => Some(PaymentStatus::Failed),
            Self::Refunded => Some(PaymentStatus::Refunded),
            Self::RefundDue(_) => Some(PaymentStatus::RefundDue),
            Self::Repeated | Self::Unchanged | Self::Unknown => None,
        }
    }

    /// Counts what the payment has come to, and tells what a person must look at.
    pub(super) fn report(self, metrics: &Metrics, payment: &str, provider: ProviderName) {
        let provider = provider.as_str();
        if let Some(status) = self.status() {
            metrics.payments.came_to(provider, status.as_str());
        }
        match self {
            Self::RefundDue(why) => {
                if let Some(untold) = OWED.now() {
                    let why = why.as_str();
                    tracing::warn!(payment.id = payment, provider, why, untold, "Money came that must be given back");
                }
            }
            Self::Unknown => {
                if let Some(untold) = UNKNOWN.now() {
                    tracing::warn!(
                        payment.id = payment,
                        provider,
                        untold,
                        "A callback tells of a payment that is not known here"
                    );
                }
            }
            _ => {}
        }
    }
}
