//! What a provider sends, in the words of Standard Webhooks: `{"type":"payment.succeeded","data":{...}}`.
//!
//! What is not known in it is ignored, unlike in requests of buyers: a payment service sends what it likes.

use serde::Deserialize;
use serde_json::Value;

use super::rules::Told;
use crate::complaint;
use crate::error::{Error, Result};
use crate::model::{PaymentId, is_plain, is_visible};

/// As many as the table holds.
const MAX_REFERENCE_CHARS: usize = 255;

/// A callback that is its provider's.
#[derive(Debug, Clone)]
pub(super) struct Callback {
    /// The provider's own id of it: a repeat has the same.
    pub(super) id: String,
    /// What it tells.
    pub(super) told: Told,
    /// Of which payment.
    pub(super) payment: PaymentId,
    /// The provider's own id of the payment.
    pub(super) reference: Option<String>,
    /// What came, in minor units.
    pub(super) amount_cents: Option<i64>,
    /// Of what.
    pub(super) currency: Option<String>,
}

/// What is read of a callback.
#[derive(Debug)]
pub(super) enum Read {
    /// It tells something.
    Callback(Callback),
    /// It names no payment that could be ours.
    Unknown,
    /// It is of a kind that we do not know.
    Ignored,
}

#[derive(Deserialize)]
struct Envelope {
    r#type: String,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Data {
    payment_id: String,
    reference: Option<String>,
    amount_cents: Option<i64>,
    currency: Option<String>,
}

/// Reads the body of a callback whose signature is right.
pub(super) fn read(id: &str, body: &[u8]) -> Result<Read> {
    let refused = |place: &str, error: &serde_json::Error| {
        let complaint = complaint::of_json(error);
        let field = complaint.field.unwrap_or_else(|| place.to_owned());
        Error::Invalid(format!("{field}: {}", complaint.problem))
    };
    let envelope: Envelope = serde_json::from_slice(body).map_err(|error| refused("body", &error))?;
    let told = match envelope.r#type.as_str() {
        "payment.succeeded" => Told::Succeeded,
        "payment.failed" => Told::Failed,
        "payment.refunded" => Told::Refunded,
        _ => return Ok(Read::Ignored),
    };
    let data: Data = serde_json::from_value(envelope.data).map_err(|error| refused("data", &error))?;
    let reference = data.reference.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    if let Some(reference) = &reference {
        is_plain(reference).map_err(|problem| Error::Invalid(format!("reference: {problem}")))?;
        if !is_visible(reference) || reference.chars().count() > MAX_REFERENCE_CHARS {
            return Err(Error::Invalid(format!("reference: must be 1 to {MAX_REFERENCE_CHARS} visible characters")));
        }
    }
    // What came is compared with what was asked for, so it must be said.
    let is_missing = |name: &str| Error::Invalid(format!("{name}: is missing"));
    if told == Told::Succeeded {
        data.amount_cents.ok_or_else(|| is_missing("amount_cents"))?;
        data.currency.as_ref().ok_or_else(|| is_missing("currency"))?;
    }
    let Ok(payment) = data.payment_id.parse() else { return Ok(Read::Unknown) };
    let Data { amount_cents, currency, .. } = data;
    Ok(Read::Callback(Callback { id: id.to_owned(), told, payment, reference, amount_cents, currency }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(kind: &str, data: &Value) -> Result<Read> {
        read("event", json!({"type": kind, "timestamp": "2026-11-29T08:00:00Z", "data": data}).to_string().as_bytes())
    }

    #[test]
    fn a_callback_is_read_with_more_in_it_than_we_know() {
        let id = PaymentId::draw();
        let data = json!({"payment_id": id.to_string(), "reference": " pi_1 ", "amount_cents": 5, "currency": "EUR", "more": [1]});
        let Ok(Read::Callback(callback)) = body("payment.succeeded", &data) else { panic!("{data}") };
        assert_eq!(
            (callback.payment, callback.reference.as_deref(), callback.told),
            (id, Some("pi_1"), Told::Succeeded)
        );
        assert_eq!((callback.amount_cents, callback.currency.as_deref()), (Some(5), Some("EUR")));
        assert!(matches!(body("payment.failed", &json!({"payment_id": id.to_string()})), Ok(Read::Callback(_))));
        assert!(matches!(body("customer.created", &json!(7)), Ok(Read::Ignored)));
        assert!(matches!(body("payment.failed", &json!({"payment_id": "pi_1"})), Ok(Read::Unknown)));
    }

    #[test]
    fn what_cannot_be_understood_is_refused_by_the_name_of_its_field() {
        let id = PaymentId::draw().to_string();
        for (data, field) in [
            (json!({}), "payment_id"),
            (json!({"payment_id": id}), "amount_cents"),
            (json!({"payment_id": id, "amount_cents": 5}), "currency"),
            (json!({"payment_id": id, "amount_cents": 5, "currency": "EUR", "reference": "a\nb"}), "reference"),
            (
                json!({"payment_id": id, "amount_cents": 5, "currency": "EUR", "reference": "x".repeat(256)}),
                "reference",
            ),
            (Value::Null, "data"),
        ] {
            let refused = body("payment.succeeded", &data).unwrap_err();
            assert_eq!(refused.code(), "invalid_request");
            assert!(refused.to_string().starts_with(field), "{data}: {refused}");
        }
        for bad in [&b"{"[..], b"", b"[]", b"{\"data\":{}}"] {
            assert!(matches!(read("event", bad), Err(Error::Invalid(_))), "{bad:?}");
        }
    }
}
