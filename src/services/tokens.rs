//! Access tokens: JWT, HS256. A token that our secret signed is believed without a look-up.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

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

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    role: Role,
    iat: i64,
    exp: i64,
}

/// Identity and end of a token's claims, if they are written exactly as [`Claims`] are here.
fn own_claims(json: &str) -> Option<(Identity, i64)> {
    let (sub, rest) = cut(json.strip_prefix(r#"{"sub":""#)?, b'"')?;
    let (role, rest) = cut(rest.strip_prefix(r#"","role":""#)?, b'"')?;
    let (iat, rest) = cut(rest.strip_prefix(r#"","iat":"#)?, b',')?;
    let (exp, rest) = cut(rest.strip_prefix(r#","exp":"#)?, b'}')?;
    if rest != "}" {
        return None;
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(iat) || !digits(exp) {
        return None;
    }
    Some((Identity { user_id: sub.parse().ok()?, role: role.parse().ok()? }, exp.parse().ok()?))
}

/// What comes before a mark, and the rest from it on. For a few characters this is quicker than a general search.
fn cut(text: &str, mark: u8) -> Option<(&str, &str)> {
    text.split_at_checked(text.bytes().position(|byte| byte == mark)?)
}

/// Encoded claims of ours are shorter.
const OWN_CLAIMS_MAX_BYTES: usize = 192;

/// Signs and checks tokens.
pub struct Tokens {
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
    lifetime: Duration,
    /// What a token of ours begins with: its encoded header and a dot.
    own_header: String,
    /// Has taken in the key.
    own_mac: Hmac<Sha256>,
}

impl Tokens {
    /// Tokens signed with `secret`, good for `lifetime`.
    pub fn new(secret: &SecretString, lifetime: Duration) -> Self {
        let secret = secret.expose_secret().as_bytes();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        let header = serde_json::to_vec(&Header::new(Algorithm::HS256)).expect("a header always has a JSON form");
        Self {
            signing: EncodingKey::from_secret(secret),
            checking: DecodingKey::from_secret(secret),
            validation,
            lifetime,
            own_header: URL_SAFE_NO_PAD.encode(header) + ".",
            own_mac: Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"),
        }
    }

    /// How long a new token is good.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A new token.
    pub fn issue(&self, identity: Identity) -> Result<String> {
        let iat = Timestamp::now().unix_ms() / 1000;
        let exp = iat + self.lifetime.as_secs() as i64;
        let claims = Claims { sub: identity.user_id.to_string(), role: identity.role, iat, exp };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing)
            .map_err(|error| Error::Internal(format!("signing a token: {error}")))
    }

    /// Who a token was issued to.
    pub fn check(&self, token: &str) -> Result<Identity> {
        if let Some(identity) = self.check_own(token) {
            return Ok(identity);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.checking, &self.validation)
            .map_err(|_| Error::Unauthorized)?
            .claims;
        let user_id = claims.sub.parse().map_err(|_| Error::Unauthorized)?;
        Ok(Identity { user_id, role: claims.role })
    }

    /// Believes a token that looks as we issue it, for a fraction of the library's time: its form is compared, not read,
    /// and the key is hashed once for all. Whatever else there is, the library decides.
    fn check_own(&self, token: &str) -> Option<Identity> {
        let (claims, signature) = token.strip_prefix(&self.own_header)?.split_once('.')?;
        let signed = &token[..self.own_header.len() + claims.len()];
        let (mut given, mut json) = ([0; 32], [0; OWN_CLAIMS_MAX_BYTES]);
        if URL_SAFE_NO_PAD.decode_slice(signature, &mut given).ok()? != given.len() {
            return None;
        }
        self.own_mac.clone().chain_update(signed).verify_slice(&given).ok()?;
        let length = URL_SAFE_NO_PAD.decode_slice(claims, &mut json).ok()?;
        let (identity, exp) = own_claims(std::str::from_utf8(&json[..length]).ok()?)?;
        (exp >= Timestamp::now().unix_ms() / 1000).then_some(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(secret: &str) -> Tokens {
        Tokens::new(&secret.into(), Duration::from_secs(60))
    }

    fn signed(header: &Header, claims: &serde_json::Value, secret: &str) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    #[test]
    fn a_token_says_who_it_was_issued_to() {
        let identity = Identity { user_id: 7.try_into().unwrap(), role: Role::Buyer };
        let tokens = tokens("one");
        let token = tokens.issue(identity).unwrap();
        assert_eq!(tokens.check(&token).unwrap(), identity);
        assert_eq!(tokens.check_own(&token), Some(identity), "the short way");
    }

    #[test]
    fn claims_in_any_other_form_than_ours_are_left_to_the_library() {
        let ours = r#"{"sub":"7","role":"admin","iat":5,"exp":9}"#;
        let admin = Identity { user_id: 7.try_into().unwrap(), role: Role::Admin };
        assert_eq!(own_claims(ours), Some((admin, 9)));
        for (part, other) in [
            ("{", " {"),
            ("}", ",\"aud\":\"them\"}"),
            ("}", "} "),
            ("\"7\"", "7"),
            ("\"7\"", "\"0\""),
            ("\"7\"", "\"\\u0037\""),
            ("admin", "owner"),
            (":5", ":-5"),
            (":5", ":\"5\""),
            (":5", ":"),
            (":9", ":9.5"),
            (":9", ":9223372036854775808"),
            ("\"sub\"", "\"sub\":\"8\",\"sub\""),
        ] {
            assert_eq!(own_claims(&ours.replacen(part, other, 1)), None, "{other} for {part}");
        }
    }

    #[test]
    fn only_a_fresh_token_of_ours_for_a_positive_user_is_believed() {
        let now = Timestamp::now().unix_ms() / 1000;
        let claims = |sub: &str, exp: i64| serde_json::json!({"sub": sub, "role": "buyer", "iat": now, "exp": exp});
        let good = signed(&Header::new(Algorithm::HS256), &claims("7", now + 60), "one");
        assert!(tokens("one").check(&good).is_ok());
        assert!(tokens("two").check(&good).is_err(), "another secret");
        let hs512 = signed(&Header::new(Algorithm::HS512), &claims("7", now + 60), "one");
        assert!(tokens("one").check(&hs512).is_err(), "another algorithm");
        for (sub, exp) in [("7", now - 1), ("0", now + 60), ("-1", now + 60), ("x", now + 60)] {
            let token = signed(&Header::new(Algorithm::HS256), &claims(sub, exp), "one");
            assert!(tokens("one").check(&token).is_err(), "{sub} {exp}");
        }
        let for_another = serde_json::json!({"sub": "7", "role": "buyer", "iat": now, "exp": now + 60, "aud": "them"});
        assert!(tokens("one").check(&signed(&Header::new(Algorithm::HS256), &for_another, "one")).is_err(), "audience");
        for place in 0..good.len() {
            let mut changed = good.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'Q' } else { b'A' };
            assert!(tokens("one").check(std::str::from_utf8(&changed).unwrap()).is_err(), "changed at {place}");
        }
        let without_signature = good.rsplit_once('.').unwrap().0.to_owned() + ".";
        assert!(tokens("one").check(&without_signature).is_err());
        assert!(tokens("one").check("").is_err());
    }
}
