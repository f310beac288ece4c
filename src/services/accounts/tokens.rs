//! Access tokens that we issue: JWT, HS256. A token of ours is believed without a look-up.
//!
//! Only ours: `iss` is `seckill`, and the signature is by our own secret. Whom a token is about is a number that `users`
//! gave; nobody else may give such numbers.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::jwt::{CLOCK_AHEAD_SECONDS, SignedToken};
use super::signature::{SigningKey, VerifyingKey};
use crate::config::OWN_ISSUER as ISSUER;
use crate::error::{Error, Result};
use crate::model::{Role, Timestamp, UserId};

/// Who a token says its bearer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user_id: UserId,
    /// What they may do.
    pub role: Role,
}

/// A token of ours that is in force, unless it was withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnToken {
    /// Whom it was issued to.
    pub identity: Identity,
    /// In which of the account's generations: each log-out begins a new one.
    pub generation: i64,
}

/// In this order: what comes out is compared byte for byte by [`own_claims`].
#[derive(Serialize, Deserialize)]
struct OwnClaims {
    iss: String,
    sub: String,
    role: Role,
    r#gen: i64,
    iat: i64,
    exp: i64,
}

/// A token, when it was issued and when it ends, if its claims are written exactly as [`OwnClaims`] are here.
fn own_claims(json: &[u8]) -> Option<(OwnToken, i64, i64)> {
    let (sub, rest) = number(json.strip_prefix(br#"{"iss":"seckill","sub":""#)?)?;
    let rest = rest.strip_prefix(br#"","role":""#)?;
    let (role, rest) = rest.split_at_checked(rest.iter().position(|byte| *byte == b'"')?)?;
    let (generation, rest) = number(rest.strip_prefix(br#"","gen":"#)?)?;
    let (iat, rest) = number(rest.strip_prefix(br#","iat":"#)?)?;
    let (exp, rest) = number(rest.strip_prefix(br#","exp":"#)?)?;
    if rest != b"}" {
        return None;
    }
    let identity = Identity { user_id: known_user(sub)?, role: std::str::from_utf8(role).ok()?.parse().ok()? };
    Some((OwnToken { identity, generation }, iat, exp))
}

/// The number that a text begins with, in its one spelling, and what comes behind it.
fn number(text: &[u8]) -> Option<(i64, &[u8])> {
    let (mut value, mut length) = (0, 0);
    // What has more digits is none of ours.
    for byte in text.iter().take(MAX_DIGITS).take_while(|byte| byte.is_ascii_digit()) {
        value = value * 10 + i64::from(byte - b'0');
        length += 1;
    }
    let has_one_spelling = length == 1 || (length > 1 && text[0] != b'0');
    has_one_spelling.then(|| (value, &text[length..]))
}

/// So many always fit.
const MAX_DIGITS: usize = 18;

/// A number that `users` may have given. Larger ones are read wrongly by JavaScript.
fn known_user(number: i64) -> Option<UserId> {
    UserId::try_from(number).ok().filter(|user| user.get() <= UserId::GREATEST_KNOWN)
}

/// Encoded claims of ours are shorter.
const OWN_CLAIMS_MAX_BYTES: usize = 192;

/// Base64 with the widest instructions of this processor; the library has them for these only.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
type Decoder = base64::engine::Simd;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type Decoder = base64::engine::GeneralPurpose;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn decoder() -> Decoder {
    Decoder::url_safe(base64::engine::general_purpose::NO_PAD)
}
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn decoder() -> Decoder {
    URL_SAFE_NO_PAD
}

/// Signs and checks tokens.
pub struct Tokens {
    key: SigningKey,
    /// The same, for tokens in any form.
    any_form: VerifyingKey,
    lifetime: Duration,
    /// What a token of ours begins with: its encoded header and a dot.
    own_header: String,
    decoder: Decoder,
}

impl Tokens {
    /// Tokens signed with `secret`, good for `lifetime`.
    pub fn new(secret: &SecretString, lifetime: Duration) -> Self {
        let secret = secret.expose_secret().as_bytes();
        let header = serde_json::to_vec(&Header::new(Algorithm::HS256)).expect("a header always has a JSON form");
        Self {
            key: SigningKey::new(secret),
            any_form: VerifyingKey::Secret(SigningKey::new(secret)),
            lifetime,
            own_header: URL_SAFE_NO_PAD.encode(header) + ".",
            decoder: decoder(),
        }
    }

    /// How long a new token is good.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A new token of a user who has never logged out.
    pub fn issue(&self, identity: Identity) -> Result<String> {
        self.issue_in(identity, 0)
    }

    /// A new token in this generation of the account's.
    pub fn issue_in(&self, identity: Identity, generation: i64) -> Result<String> {
        let iat = now();
        let claims = OwnClaims {
            iss: ISSUER.to_owned(),
            sub: identity.user_id.to_string(),
            role: identity.role,
            r#gen: generation,
            iat,
            exp: iat.saturating_add_unsigned(self.lifetime.as_secs()),
        };
        let claims =
            serde_json::to_vec(&claims).map_err(|error| Error::Internal(format!("writing a token: {error}")))?;
        let message = format!("{}{}", self.own_header, URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes()));
        Ok(format!("{message}.{signature}"))
    }

    /// Who a token was issued to, and when.
    pub fn check(&self, token: &str) -> Result<OwnToken> {
        self.check_own(token).or_else(|| self.check_any(token)).ok_or(Error::Unauthorized)
    }

    /// Believes a token that looks as we issue it, for a fraction of the time of reading it: its form is compared, and the
    /// key is hashed once for all. Whatever else there is, [`Tokens::check_any`] decides.
    fn check_own(&self, token: &str) -> Option<OwnToken> {
        let rest = token.as_bytes().strip_prefix(self.own_header.as_bytes())?;
        let (claims, signature) = rest.split_at_checked(memchr::memchr(b'.', rest)?)?;
        let (signed, signature) = (&token[..self.own_header.len() + claims.len()], signature.get(1..)?);
        let (mut given, mut json) = ([0; 32], [0; OWN_CLAIMS_MAX_BYTES]);
        if self.decoder.decode_slice(signature, &mut given).ok()? != given.len() {
            return None;
        }
        if !self.key.verify(signed.as_bytes(), &given) {
            return None;
        }
        let length = self.decoder.decode_slice(claims, &mut json).ok()?;
        let (own, iat, exp) = own_claims(&json[..length])?;
        let now = now();
        (exp > now && iat <= now + CLOCK_AHEAD_SECONDS && self.is_young(iat, now)).then_some(own)
    }

    /// The same for claims in any order and spelling.
    fn check_any(&self, token: &str) -> Option<OwnToken> {
        let token = SignedToken::read(token)?;
        if !token.is_signed_by(&self.any_form) {
            return None;
        }
        let (claims, now) = (token.claims()?, now());
        let role = claims.role.as_str()?.parse().ok()?;
        let generation = if claims.generation.is_null() { 0 } else { claims.generation.as_i64()? };
        let good = claims.hold(ISSUER, None, now) && generation >= 0 && self.is_young(claims.issued_at()?, now);
        // In its one spelling.
        let user: UserId = claims.sub.parse().ok()?;
        let identity = Identity { user_id: known_user(user.get())?, role };
        good.then_some(OwnToken { identity, generation })
    }

    /// No token outlives `auth.token_ttl_seconds` as it is now, whatever it was when the token was issued: older
    /// withdrawals can be forgotten.
    fn is_young(&self, iat: i64, now: i64) -> bool {
        iat.saturating_add_unsigned(self.lifetime.as_secs()) > now
    }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    Timestamp::now().unix_ms() / 1000
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, EncodingKey};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn tokens(secret: &str) -> Tokens {
        Tokens::new(&secret.into(), Duration::from_secs(60))
    }

    fn signed(header: &Header, claims: &Value, secret: &str) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    fn user(id: i64, role: Role) -> Identity {
        Identity { user_id: id.try_into().unwrap(), role }
    }

    #[test]
    fn a_token_says_who_it_was_issued_to() {
        let (tokens, identity) = (tokens("one"), user(7, Role::Buyer));
        let token = tokens.issue_in(identity, 3).unwrap();
        assert_eq!(tokens.check(&token).unwrap(), OwnToken { identity, generation: 3 });
        assert_eq!(tokens.check_own(&token), Some(OwnToken { identity, generation: 3 }), "the short way");
        assert_eq!(tokens.check_any(&token), Some(OwnToken { identity, generation: 3 }), "the long way");
    }

    #[test]
    fn claims_in_any_other_form_than_ours_are_left_to_the_long_way() {
        let ours = r#"{"iss":"seckill","sub":"7","role":"admin","gen":2,"iat":5,"exp":9}"#;
        let own = OwnToken { identity: user(7, Role::Admin), generation: 2 };
        assert_eq!(own_claims(ours.as_bytes()), Some((own, 5, 9)));
        for (part, other) in [
            ("{", " {"),
            ("}", ",\"aud\":\"them\"}"),
            ("}", "} "),
            ("seckill", "them"),
            ("\"7\"", "7"),
            ("\"7\"", "\"0\""),
            ("\"7\"", "\"9007199254740992\""),
            ("\"7\"", "\"\\u0037\""),
            ("admin", "owner"),
            (":2", ":-2"),
            (":2", ":02"),
            (":5", ":-5"),
            (":5", ":\"5\""),
            (":5", ":"),
            (":9", ":9.5"),
            (":9", ":1000000000000000000"),
            (":9", ":9223372036854775808"),
            ("\"sub\"", "\"sub\":\"8\",\"sub\""),
        ] {
            assert_eq!(own_claims(ours.replacen(part, other, 1).as_bytes()), None, "{other} for {part}");
        }
    }

    #[test]
    fn only_a_fresh_token_of_ours_for_a_known_user_is_believed() {
        let now = now();
        let good = json!({"iss": "seckill", "sub": "7", "role": "buyer", "iat": now, "exp": now + 60});
        let sign = |claims: &Value| signed(&Header::new(Algorithm::HS256), claims, "one");
        let token = sign(&good);
        assert!(tokens("one").check(&token).is_ok(), "in any order");
        assert!(tokens("two").check(&token).is_err(), "another secret");
        let hs512 = signed(&Header::new(Algorithm::HS512), &good, "one");
        assert!(tokens("one").check(&hs512).is_err(), "another algorithm");
        for (claim, value) in [
            ("iss", json!("shop")),
            ("iss", Value::Null),
            ("sub", json!("0")),
            ("sub", json!("-1")),
            ("sub", json!("x")),
            ("sub", json!("07")),
            ("sub", json!("9007199254740992")),
            ("role", json!("owner")),
            ("role", Value::Null),
            ("gen", json!("1")),
            ("gen", json!(-1)),
            ("exp", json!(now - 1)),
            ("exp", json!(now)),
            ("iat", json!(now + 120)),
            ("iat", json!(now - 61)),
            ("iat", Value::Null),
            ("nbf", json!(now + 120)),
            ("aud", json!("them")),
        ] {
            let mut claims = good.clone();
            claims[claim] = value;
            assert!(tokens("one").check(&sign(&claims)).is_err(), "{claims}");
        }
        let mut of_the_version_before = good.clone();
        of_the_version_before.as_object_mut().unwrap().remove("iss");
        assert!(tokens("one").check(&sign(&of_the_version_before)).is_err(), "anybody may have signed it");
        let largest = json!({"iss": "seckill", "sub": "9007199254740991", "role": "buyer", "iat": now, "exp": now + 9});
        assert!(tokens("one").check(&sign(&largest)).is_ok());
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'Q' } else { b'A' };
            assert!(tokens("one").check(std::str::from_utf8(&changed).unwrap()).is_err(), "changed at {place}");
        }
        let without_signature = token.rsplit_once('.').unwrap().0.to_owned() + ".";
        assert!(tokens("one").check(&without_signature).is_err());
        assert!(tokens("one").check("").is_err());
    }

    /// One of the spellings that differ in what they claim, or only in how.
    fn claims() -> impl Strategy<Value = String> {
        let number =
            prop_oneof![Just("0".to_owned()), (1..i64::MAX).prop_map(|n| n.to_string()), "[-+ ]?0?[0-9]{1,20}"];
        let time = prop_oneof![(-90..90_i64).prop_map(|by| (now() + by).to_string()), "[0-9]{1,12}(\\.[0-9])?"];
        let issuer = prop_oneof![9 => Just("seckill"), 1 => Just("shop")];
        let role = prop_oneof![9 => Just("buyer"), 5 => Just("admin"), 1 => Just("owner")];
        let space = prop_oneof![9 => Just(""), 1 => Just(" ")];
        (issuer, number.clone(), role, number, time.clone(), time, space).prop_map(
            |(iss, sub, role, generation, iat, exp, space)| {
                format!(
                    r#"{{"iss":"{iss}",{space}"sub":"{sub}","role":"{role}","gen":{generation},"iat":{iat},"exp":{exp}}}"#
                )
            },
        )
    }

    proptest! {
        /// The short way is never kinder than the long one, nor than the library.
        #[test]
        fn the_short_way_believes_nothing_that_the_long_one_does_not(json in claims()) {
            let tokens = tokens("one");
            let header = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Header::new(Algorithm::HS256)).unwrap());
            let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(&json));
            let key = EncodingKey::from_secret(b"one");
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
            let token = format!("{message}.{signature}");
            if let Some(own) = tokens.check_own(&token) {
                prop_assert_eq!(tokens.check_any(&token), Some(own));
                let mut validation = jsonwebtoken::Validation::new(Algorithm::HS256);
                validation.leeway = 0;
                validation.set_issuer(&[ISSUER]);
                validation.set_required_spec_claims(&["iss", "sub", "exp"]);
                let claims = jsonwebtoken::decode::<OwnClaims>(&token, &DecodingKey::from_secret(b"one"), &validation);
                let claims = claims.unwrap().claims;
                prop_assert_eq!(claims.sub, own.identity.user_id.to_string());
                prop_assert_eq!(claims.role, own.identity.role);
                prop_assert_eq!(claims.r#gen, own.generation);
            }
        }
    }
}
