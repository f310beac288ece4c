//! What Stripe tells: of a checkout, and of what it took being given back. A fraction of each object is read.

use serde::Deserialize;
use serde_json::Value;

use super::super::super::callback::{Callback, Read};
use super::super::super::rules::Told;
use super::amounts::from_stripe;
use crate::complaint;
use crate::error::{Error, Result};
use crate::telemetry::LogThrottle;

/// As many as the table holds.
const MAX_ID: usize = 255;

/// Lines about money that could not be given back.
static NOT_REFUNDED: LogThrottle = LogThrottle::each_second();

#[derive(Deserialize)]
struct Event {
    id: String,
    r#type: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    object: Value,
}

/// What we gave Stripe to keep with an object.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Metadata {
    /// Which payment it is of. Others than ours have none.
    pub(super) payment_id: Option<String>,
}

/// A Checkout Session.
#[derive(Debug, Deserialize)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) url: Option<String>,
    status: Option<String>,
    payment_status: Option<String>,
    pub(super) payment_intent: Option<String>,
    amount_total: Option<i64>,
    currency: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Charge {
    refunded: bool,
    payment_intent: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

/// A refund.
#[derive(Debug, Deserialize)]
pub(super) struct Refund {
    pub(super) id: String,
    pub(super) status: Option<String>,
    pub(super) failure_reason: Option<String>,
    #[serde(default)]
    pub(super) metadata: Option<Metadata>,
}

/// Reads the body of a callback whose signature is right.
pub(super) fn read(body: &[u8]) -> Result<Read> {
    let event: Event = serde_json::from_slice(body).map_err(|error| refused("body", &error))?;
    if !(1..=MAX_ID).contains(&event.id.len()) {
        return Err(Error::Invalid(format!("id: must have 1 to {MAX_ID} bytes")));
    }
    let (id, object) = (event.id, event.data.object);
    match event.r#type.as_str() {
        "checkout.session.completed" | "checkout.session.async_payment_succeeded" => {
            let session: Session = object_of(object)?;
            // Some ways to pay take days: then the checkout is complete, and the money comes or fails later.
            if session.payment_status.as_deref() == Some("unpaid") {
                Ok(Read::Ignored)
            } else {
                session.read(id, Told::Succeeded)
            }
        }
        "checkout.session.async_payment_failed" | "checkout.session.expired" => {
            object_of::<Session>(object)?.read(id, Told::Failed)
        }
        "charge.refunded" => {
            let charge: Charge = object_of(object)?;
            // A part of the money changes nothing here.
            if !charge.refunded {
                return Ok(Read::Ignored);
            }
            of_payment(charge.metadata, |payment| refunded(id, payment, charge.payment_intent))
        }
        "refund.failed" | "refund.updated" | "charge.refund.updated" => {
            let refund: Refund = object_of(object)?;
            if refund.status.as_deref() == Some("failed") {
                log_failed(&refund);
            }
            Ok(Read::Ignored)
        }
        _ => Ok(Read::Ignored),
    }
}

fn object_of<T: serde::de::DeserializeOwned>(object: Value) -> Result<T> {
    serde_json::from_value(object).map_err(|error| refused("data.object", &error))
}

fn refused(place: &str, error: &serde_json::Error) -> Error {
    let complaint = complaint::of_json(error);
    let field = complaint.field.unwrap_or_else(|| place.to_owned());
    Error::Invalid(format!("{field}: {}", complaint.problem))
}

/// An account at Stripe may sell other things, too: what does not name a payment is not ours.
fn of_payment(metadata: Option<Metadata>, callback: impl FnOnce(crate::model::PaymentId) -> Callback) -> Result<Read> {
    let Some(id) = metadata.and_then(|metadata| metadata.payment_id) else { return Ok(Read::Ignored) };
    Ok(id.parse().map_or(Read::Unknown, |payment| Read::Callback(callback(payment))))
}

/// All the money was given back.
pub(super) fn refunded(id: String, payment: crate::model::PaymentId, intent: Option<String>) -> Callback {
    Callback { id, told: Told::Refunded, payment, reference: intent, amount_cents: None, currency: None }
}

/// The buyer's bank has not taken the money back, for example: a person must look after it.
pub(super) fn log_failed(refund: &Refund) {
    if let Some(untold) = NOT_REFUNDED.now() {
        let payment = refund.metadata.as_ref().and_then(|metadata| metadata.payment_id.as_deref()).unwrap_or("-");
        let why = refund.failure_reason.as_deref().unwrap_or("unknown");
        tracing::warn!(payment.id = payment, refund.id = refund.id, why, untold, "Stripe could not give money back");
    }
}

/// Where a checkout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The buyer may pay.
    Open,
    /// The buyer has paid in a way that takes days.
    Processing,
    /// The money came.
    Paid,
    /// It is over, and no money came.
    Expired,
}

impl Session {
    pub(super) fn standing(&self) -> Standing {
        match (self.status.as_deref(), self.payment_status.as_deref()) {
            (Some("expired"), _) => Standing::Expired,
            (Some("complete"), Some("unpaid")) => Standing::Processing,
            (Some("complete"), _) => Standing::Paid,
            _ => Standing::Open,
        }
    }

    fn read(self, id: String, told: Told) -> Result<Read> {
        let metadata = Metadata { payment_id: self.metadata.as_ref().and_then(|metadata| metadata.payment_id.clone()) };
        of_payment(Some(metadata), |payment| self.tells(id, payment, told))
    }

    /// What it tells of its payment.
    pub(super) fn tells(self, id: String, payment: crate::model::PaymentId, told: Told) -> Callback {
        let currency = self.currency.map(|currency| currency.to_ascii_uppercase());
        let amount_cents =
            self.amount_total.zip(currency.as_deref()).and_then(|(amount, code)| from_stripe(amount, code));
        Callback { id, told, payment, reference: self.payment_intent, amount_cents, currency }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::PaymentId;

    fn event(kind: &str, object: &Value) -> Result<Read> {
        read(json!({"id": "evt_1", "object": "event", "type": kind, "data": {"object": object}}).to_string().as_bytes())
    }

    fn session(payment: Option<String>, payment_status: &str) -> Value {
        json!({"id": "cs_1", "object": "checkout.session", "status": "complete", "payment_status": payment_status,
            "payment_intent": "pi_1", "amount_total": 500, "currency": "isk", "metadata": {"payment_id": payment}})
    }

    #[test]
    fn a_checkout_tells_of_its_payment_in_our_units() {
        let id = PaymentId::draw();
        for kind in ["checkout.session.completed", "checkout.session.async_payment_succeeded"] {
            let read = event(kind, &session(Some(id.to_string()), "paid"));
            let Ok(Read::Callback(callback)) = read else { panic!("{kind}: {read:?}") };
            assert_eq!((callback.id.as_str(), callback.told, callback.payment), ("evt_1", Told::Succeeded, id));
            assert_eq!((callback.amount_cents, callback.currency.as_deref()), (Some(5), Some("ISK")));
            assert_eq!(callback.reference.as_deref(), Some("pi_1"));
        }
        for kind in ["checkout.session.async_payment_failed", "checkout.session.expired"] {
            let read = event(kind, &session(Some(id.to_string()), "unpaid"));
            assert!(matches!(read, Ok(Read::Callback(Callback { told: Told::Failed, .. }))), "{kind}: {read:?}");
        }
    }

    #[test]
    fn what_says_nothing_of_our_payments_is_left_alone() {
        let id = PaymentId::draw().to_string();
        let part = json!({"refunded": false, "payment_intent": "pi_1", "metadata": {"payment_id": id}});
        let all = json!({"refunded": true, "payment_intent": "pi_1", "metadata": {"payment_id": id}});
        let failed = json!({"id": "re_1", "status": "failed", "metadata": {"payment_id": id}});
        assert!(matches!(event("checkout.session.completed", &session(Some(id), "unpaid")), Ok(Read::Ignored)));
        assert!(matches!(event("checkout.session.completed", &session(None, "paid")), Ok(Read::Ignored)));
        assert!(matches!(event("checkout.session.expired", &json!({"id": "cs_1"})), Ok(Read::Ignored)));
        assert!(matches!(event("checkout.session.expired", &session(Some("x".to_owned()), "paid")), Ok(Read::Unknown)));
        assert!(matches!(event("charge.refunded", &part), Ok(Read::Ignored)));
        assert!(matches!(event("charge.refunded", &all), Ok(Read::Callback(Callback { told: Told::Refunded, .. }))));
        assert!(matches!(event("refund.failed", &failed), Ok(Read::Ignored)));
        assert!(matches!(event("customer.created", &Value::Null), Ok(Read::Ignored)));
    }

    #[test]
    fn what_cannot_be_understood_is_refused_by_its_field() {
        assert!(matches!(read(b"{"), Err(Error::Invalid(_))));
        assert!(matches!(read(br#"{"id":"","type":"x","data":{}}"#), Err(Error::Invalid(_))));
        assert!(matches!(read(br#"{"type":"x","data":{}}"#), Err(Error::Invalid(_))));
        let refused = event("charge.refunded", &json!({})).unwrap_err().to_string();
        assert!(refused.starts_with("refunded"), "{refused}");
    }
}
