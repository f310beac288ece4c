//! Signatures as [Standard Webhooks](https://www.standardwebhooks.com) has them: HMAC-SHA256 over id, time and body. Of callbacks, which are
//! verified, and of webhooks to the shop, which are signed.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::error::{Error, Result};
use crate::model::Timestamp;

/// A callback may be this old, or this far ahead. What is repeated later is signed anew.
const TOLERANCE: Duration = Duration::from_secs(300);
/// Longer ids of callbacks are refused: they are kept.
const MAX_ID: usize = 255;

/// When a callback was sent, as its seconds since 1970 say.
pub(in crate::services) fn sent_at(seconds: &str) -> Option<Timestamp> {
    seconds.parse::<i64>().ok()?.checked_mul(1000).and_then(Timestamp::from_unix_ms)
}

/// Whether that is near enough to be believed.
pub(in crate::services) fn is_near(sent: Timestamp, now: Timestamp) -> bool {
    now.since(sent) <= TOLERANCE && sent.since(now) <= TOLERANCE
}

/// A key that signs.
pub(in crate::services) struct WebhookKey(Hmac<Sha256>);

impl WebhookKey {
    /// Prepares a key: it is hashed once, not for each callback.
    pub(in crate::services) fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// A key that everybody who knows `secret` can make, and nobody who knows the key can find `secret` by.
    pub(in crate::services) fn derived(secret: &[u8], label: &str) -> Self {
        Self::new(&Self::new(secret).0.chain_update(label).finalize().into_bytes())
    }

    /// What `webhook-signature` says.
    pub(in crate::services) fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.over(id, timestamp, body).finalize().into_bytes()))
    }

    /// The callback's id, if its signature is right and its time is near. `header` finds a header by its name.
    pub(in crate::services) fn verify<'h>(
        &self,
        header: impl Fn(&str) -> Option<&'h str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<&'h str> {
        let find = |name, missing| header(name).ok_or(Error::InvalidSignature(missing));
        let id = find("webhook-id", "webhook-id: is missing")?;
        if !(1..=MAX_ID).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::InvalidSignature("webhook-id: must be 1 to 255 visible ASCII characters"));
        }
        let timestamp = find("webhook-timestamp", "webhook-timestamp: is missing")?;
        let sent =
            sent_at(timestamp).ok_or(Error::InvalidSignature("webhook-timestamp: must be seconds since 1970"))?;
        if !is_near(sent, now) {
            return Err(Error::InvalidSignature("webhook-timestamp: is more than five minutes off"));
        }
        let signatures = find("webhook-signature", "webhook-signature: is missing")?;
        let over = self.over(id, timestamp, body);
        // Several while the key is changed: one that fits is enough. Other versions than v1 are not known.
        let fits = |signature: &str| {
            let signature = signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
            // Takes the same time wherever it differs.
            signature.is_some_and(|signature| over.clone().verify_slice(&signature).is_ok())
        };
        match signatures.split(' ').any(fits) {
            true => Ok(id),
            false => Err(Error::InvalidSignature("webhook-signature: none of them fits the body and the secret")),
        }
    }

    fn over(&self, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
        self.0.clone().chain_update(id).chain_update(".").chain_update(timestamp).chain_update(".").chain_update(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::webhook_key;

    /// The example of the reference implementations of Standard Webhooks.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIME: &str = "1614265330";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn key() -> WebhookKey {
        WebhookKey::new(&webhook_key(SECRET).unwrap())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_ms(seconds * 1000).unwrap()
    }

    fn verify(id: &str, time: &str, signature: &str, body: &[u8], now: i64) -> std::result::Result<String, String> {
        let headers = [("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signature)];
        let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        key().verify(header, body, at(now)).map(str::to_owned).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_of_standard_webhooks_is_signed_alike_and_verified() {
        assert_eq!(key().sign(ID, TIME, BODY), SIGNATURE);
        assert_eq!(verify(ID, TIME, SIGNATURE, BODY, 1_614_265_330), Ok(ID.to_owned()));
        let several = format!("v1,AAAA v2,x {SIGNATURE} v1a,y");
        assert_eq!(verify(ID, TIME, &several, BODY, 1_614_265_330), Ok(ID.to_owned()));
        for now in [1_614_265_030, 1_614_265_630] {
            assert!(verify(ID, TIME, SIGNATURE, BODY, now).is_ok(), "{now}");
        }
    }

    #[test]
    fn what_differs_in_anything_is_refused() {
        let now = 1_614_265_330;
        for (id, time, signature, body, now) in [
            ("msg_other", TIME, SIGNATURE, BODY, now),
            (ID, "1614265331", SIGNATURE, BODY, now),
            (ID, TIME, SIGNATURE, br#"{"test": 2432232315}"#, now),
            (ID, TIME, SIGNATURE, b"", now),
            (ID, TIME, "v1,AAAA", BODY, now),
            (ID, TIME, &SIGNATURE[3..], BODY, now),
            (ID, TIME, &SIGNATURE.replace("v1,", "v2,"), BODY, now),
            (ID, TIME, "v1,", BODY, now),
            (ID, TIME, "", BODY, now),
            ("", TIME, SIGNATURE, BODY, now),
            ("with space", TIME, SIGNATURE, BODY, now),
            (ID, "now", SIGNATURE, BODY, now),
            (ID, "", SIGNATURE, BODY, now),
            (ID, "9223372036854775807", SIGNATURE, BODY, now),
            (ID, TIME, SIGNATURE, BODY, now + 301),
            (ID, TIME, SIGNATURE, BODY, now - 301),
        ] {
            assert!(verify(id, time, signature, body, now).is_err(), "{id} {time} {signature} {now}");
        }
        for missing in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            let header = |name: &str| (name != missing).then_some("1614265330");
            let refused = key().verify(header, BODY, at(now)).unwrap_err().to_string();
            assert_eq!(refused, format!("{missing}: is missing"));
        }
    }

    #[test]
    fn a_derived_key_is_another_for_each_secret_and_each_label() {
        let sign = |secret: &str, label| WebhookKey::derived(secret.as_bytes(), label).sign(ID, TIME, BODY);
        assert_eq!(sign("secret", "test"), sign("secret", "test"));
        assert_ne!(sign("secret", "test"), sign("secrets", "test"));
        assert_ne!(sign("secret", "test"), sign("secret", "tests"));
        assert_ne!(sign("secret", "test"), WebhookKey::new(b"secret").sign(ID, TIME, BODY));
    }
}
