//! Reading a token as RFC 7515 and RFC 7519 ask, whoever signed it: its form, its header, its claims.
//!
//! The claims say nothing until [`SignedToken::is_signed_by`] has said yes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::signature::VerifyingKey;

/// Longer tokens are not looked at.
const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// How far the clock of whoever signs may be ahead of ours.
pub(super) const CLOCK_AHEAD_SECONDS: i64 = 60;

/// A token in its three parts, with a header that is understood.
pub(super) struct SignedToken<'t> {
    /// How it says that it is signed.
    pub(super) algorithm: Algorithm,
    /// With which key, if it says so.
    pub(super) key_id: Option<String>,
    message: &'t str,
    claims: &'t str,
    signature: &'t str,
}

#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    #[serde(default, deserialize_with = "not_null")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

impl<'t> SignedToken<'t> {
    /// Takes a token apart. `None`: not a JWT, another algorithm than a signature with a key (`none` is one), or a header
    /// that asks for an extension (`crit`): we know none.
    pub(super) fn read(token: &'t str) -> Option<Self> {
        if token.len() > TOKEN_MAX_BYTES {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        if claims.contains('.') {
            return None;
        }
        let header: Header = json(header)?;
        let Header { alg: algorithm, kid: key_id, crit } = header;
        (!crit).then_some(Self { algorithm, key_id, message, claims, signature })
    }

    /// Whether this key made the signature, by the algorithm that the header names.
    pub(super) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let verify = |signature: Vec<u8>| key.verify(self.message.as_bytes(), &signature);
        key.algorithm() == self.algorithm && URL_SAFE_NO_PAD.decode(self.signature).is_ok_and(verify)
    }

    /// The claims.
    pub(super) fn claims(&self) -> Option<Claims> {
        json(self.claims)
    }
}

fn json<T: DeserializeOwned>(encoded: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    // The library would take an array for an object.
    json.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(&json).ok())?
}

/// What a token claims. A claim that is written twice, or is of another type than RFC 7519 says, makes it unreadable.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: String,
    /// Whom it is about.
    pub(super) sub: String,
    exp: f64,
    #[serde(default, deserialize_with = "not_null")]
    nbf: Option<f64>,
    #[serde(default, deserialize_with = "not_null")]
    iat: Option<f64>,
    #[serde(default, deserialize_with = "not_null")]
    aud: Option<Audience>,
    /// What they may do; its meaning depends on who signed.
    #[serde(default)]
    pub(super) role: serde_json::Value,
    /// Only in tokens of ours: the generation that it was issued in.
    #[serde(default, rename = "gen")]
    pub(super) generation: serde_json::Value,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Claims {
    /// Whether they come from `issuer`, are meant for us and are in force now (seconds since 1970).
    ///
    /// Without an audience of ours a token that names one is for somebody else (RFC 7519, 4.1.3).
    pub(super) fn hold(&self, issuer: &str, audience: Option<&str>, now: i64) -> bool {
        let latest = (now + CLOCK_AHEAD_SECONDS) as f64;
        let begun = |time: Option<f64>| time.is_none_or(|time| time <= latest);
        let for_us = match (&self.aud, audience) {
            (None, None) => true,
            (Some(Audience::One(named)), Some(ours)) => named == ours,
            (Some(Audience::Several(named)), Some(ours)) => named.iter().any(|named| named == ours),
            _ => false,
        };
        self.iss == issuer && self.exp > now as f64 && begun(self.nbf) && begun(self.iat) && for_us
    }

    /// The end, in whole seconds.
    pub(super) fn ends_at(&self) -> i64 {
        self.exp.ceil() as i64
    }

    /// When it was issued, in whole seconds.
    pub(super) fn issued_at(&self) -> Option<i64> {
        self.iat.map(|iat| iat.floor() as i64)
    }
}

/// `null` is not the same as left out: it is of the wrong type.
fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

fn is_there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn claims(changes: &Value) -> Option<Claims> {
        let mut claims = json!({"iss": "shop", "sub": "alice", "exp": NOW + 60});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        serde_json::from_value(claims).ok()
    }

    #[test]
    fn claims_hold_only_now_and_only_for_us() {
        for (changes, without_audience, for_seckill) in [
            (json!({}), true, false),
            (json!({"iss": "Shop"}), false, false),
            (json!({"exp": NOW}), false, false),
            (json!({"exp": NOW as f64 + 0.5}), true, false),
            (json!({"nbf": NOW + 60, "iat": NOW + 60}), true, false),
            (json!({"nbf": NOW + 61}), false, false),
            (json!({"iat": NOW + 61}), false, false),
            (json!({"aud": "seckill"}), false, true),
            (json!({"aud": "Seckill"}), false, false),
            (json!({"aud": ["other", "seckill"]}), false, true),
            (json!({"aud": ["other"]}), false, false),
            (json!({"aud": []}), false, false),
        ] {
            let read = claims(&changes).unwrap();
            assert_eq!(read.hold("shop", None, NOW), without_audience, "{changes}");
            assert_eq!(read.hold("shop", Some("seckill"), NOW), for_seckill, "{changes}");
        }
    }

    #[test]
    fn claims_of_another_type_are_not_read() {
        for changes in [
            json!({"sub": 7}),
            json!({"exp": "soon"}),
            json!({"exp": null}),
            json!({"nbf": null}),
            json!({"iat": "now"}),
            json!({"aud": 7}),
            json!({"aud": null}),
            json!({"iss": ["shop"]}),
        ] {
            assert!(claims(&changes).is_none(), "{changes}");
        }
        let twice = format!(r#"{{"iss":"shop","sub":"alice","sub":"bob","exp":{}}}"#, NOW + 60);
        assert!(serde_json::from_str::<Claims>(&twice).is_err(), "a name twice");
    }

    #[test]
    fn a_header_that_asks_for_more_than_a_signature_is_refused() {
        let token = |header: &str| format!("{}.e30.AA", URL_SAFE_NO_PAD.encode(header));
        assert!(SignedToken::read(&token(r#"{"alg":"HS256","typ":"JWT"}"#)).is_some());
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"typ":"JWT"}"#,
            r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
            r#"{"alg":"HS256","crit":[]}"#,
            r#"{"alg":"HS256","crit":null}"#,
            r#"{"alg":"HS256","alg":"RS256"}"#,
            r#"{"alg":"HS256","kid":7}"#,
            r#"["HS256"]"#,
            "",
        ] {
            assert!(SignedToken::read(&token(header)).is_none(), "{header}");
        }
        let good = token(r#"{"alg":"HS256"}"#);
        for broken in
            [good.replacen('.', "", 1), format!("{good}.AA"), "a".repeat(10_000), ".".to_owned(), String::new()]
        {
            assert!(SignedToken::read(&broken).is_none(), "{broken}");
        }
    }
}
