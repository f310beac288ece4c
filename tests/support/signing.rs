//! Signatures as Standard Webhooks has them, by other code than ours.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use secrecy::ExposeSecret;

/// The key of the test provider: it is made of the secret of the tokens.
pub fn test_key(config: &seckill::config::Config) -> Vec<u8> {
    hmac_of(config.auth.jwt_secret.expose_secret().as_bytes(), b"seckill test payments")
}

/// What `webhook-signature` says.
pub fn sign(key: &[u8], id: &str, timestamp: &str, body: &str) -> String {
    format!("v1,{}", STANDARD.encode(hmac_of(key, format!("{id}.{timestamp}.{body}").as_bytes())))
}

/// Seconds since 1970, so many of them ago.
pub fn timestamp(seconds_ago: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    (now as i64 - seconds_ago).to_string()
}

fn hmac_of(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}
