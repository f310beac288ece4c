//! Signatures of Stripe's callbacks: `Stripe-Signature: t=SECONDS,v1=HEX`, an HMAC-SHA256 over time and body.

use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::services::standard_webhooks::{is_near, sent_at};

/// The key of a webhook endpoint at Stripe.
pub(super) struct EndpointKey(Hmac<Sha256>);

impl EndpointKey {
    /// The whole secret is the key, unlike with Standard Webhooks.
    pub(super) fn new(secret: &SecretString) -> Self {
        Self(Hmac::new_from_slice(secret.expose_secret().as_bytes()).expect("HMAC takes keys of any length"))
    }

    /// Whether a callback is Stripe's, and its time near.
    pub(super) fn verify(&self, header: Option<&str>, body: &[u8], now: Timestamp) -> Result<()> {
        let header = header.ok_or(Error::InvalidSignature("stripe-signature: is missing"))?;
        let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
        let time = parts().find(|(name, _)| *name == "t").map(|(_, time)| time);
        let time = time.ok_or(Error::InvalidSignature("stripe-signature: has no t"))?;
        let sent = sent_at(time).ok_or(Error::InvalidSignature("stripe-signature: t must be seconds since 1970"))?;
        if !is_near(sent, now) {
            return Err(Error::InvalidSignature("stripe-signature: t is more than five minutes off"));
        }
        let over = self.0.clone().chain_update(time).chain_update(".").chain_update(body);
        // Several while the secret is changed: one that fits is enough. Takes the same time wherever it differs.
        let fits = |(_, hex): (&str, &str)| from_hex(hex).is_some_and(|mac| over.clone().verify_slice(&mac).is_ok());
        match parts().filter(|(name, _)| *name == "v1").any(fits) {
            true => Ok(()),
            false => Err(Error::InvalidSignature("stripe-signature: no v1 fits the body and the secret")),
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use ring::hmac;

    use super::*;

    const SECRET: &str = "whsec_test_secret";
    const BODY: &[u8] = br#"{"id":"evt_1"}"#;
    const NOW: i64 = 1_700_000_000;

    /// By other code than ours.
    fn signed(secret: &str, time: i64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, &[time.to_string().as_bytes(), b".", body].concat());
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn verify(header: &str) -> bool {
        let now = Timestamp::from_unix_ms(NOW * 1000).unwrap();
        EndpointKey::new(&SECRET.into()).verify(Some(header), BODY, now).is_ok()
    }

    #[test]
    fn only_what_stripe_signed_lately_is_believed() {
        let good = signed(SECRET, NOW, BODY);
        let old = signed("whsec_before", NOW, BODY);
        assert!(verify(&format!("t={NOW},v1={good}")));
        assert!(verify(&format!("t={NOW}, v1={old}, v1={good}, v0=00")), "one of several is enough");
        for time in [NOW - 300, NOW + 300] {
            assert!(verify(&format!("t={time},v1={}", signed(SECRET, time, BODY))));
        }
        for time in [NOW - 301, NOW + 301, i64::MAX] {
            assert!(!verify(&format!("t={time},v1={}", signed(SECRET, time, BODY))));
        }
        let other_body = signed(SECRET, NOW, br#"{"id":"evt_2"}"#);
        for bad in [
            String::new(),
            format!("t={NOW}"),
            format!("v1={good}"),
            format!("t={NOW},v0={good}"),
            format!("t={NOW},v1={old}"),
            format!("t={NOW},v1={other_body}"),
            format!("t={NOW},v1={}", &good[2..]),
            format!("t={NOW},v1={}", "é".repeat(32)),
            format!("t={},v1={good}", NOW + 1),
            format!("t=now,v1={good}"),
        ] {
            assert!(!verify(&bad), "{bad}");
        }
        assert!(EndpointKey::new(&SECRET.into()).verify(None, BODY, Timestamp::now()).is_err());
    }
}
