//! Requests to Stripe: one at a time, with a time limit, and what an answer means for who asks again.
//!
//! What is sent under an idempotency key may be sent again: Stripe does it once, and answers the same. It also answers the same where
//! it has failed half way (500), so after such an answer the next request needs another key.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::error::Error;
use crate::services::http_client::http_client;

/// One request, from the connection to the last byte.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at a time: each takes a thread. Stripe refuses more than 100 a second of an account.
const MAX_REQUESTS: usize = 32;
/// How long a request waits for its turn.
const TURN_PATIENCE: Duration = Duration::from_secs(5);
/// An answer is some kilobytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// What the fields that are read mean is fixed by it.
const API_VERSION: &str = "2024-06-20";

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(in crate::services::payments) enum StripeError {
    /// Nobody knows whether it was done: to be repeated under the same key.
    #[error("{0}")]
    NoAnswer(String),
    /// Stripe failed, and will answer the same under this key.
    #[error("{0}")]
    Spent(String),
    /// Too many at once, or one of the same key: to be repeated later. How much later Stripe leaves to who asks, and what asks
    /// again by itself waits for five seconds at least.
    #[error("busy: {0}")]
    Busy(String),
    /// A mistake of ours or of the configuration, by Stripe's code.
    #[error("{code}: {message}")]
    Refused {
        /// Such as `resource_missing`.
        code: String,
        /// For people.
        message: String,
    },
}

/// What a request came to.
pub(in crate::services::payments) type Asked<T> = Result<T, StripeError>;

impl StripeError {
    /// Stripe's code of a request that was refused.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }
}

impl From<StripeError> for Error {
    fn from(problem: StripeError) -> Self {
        Self::Unavailable(format!("Stripe: {problem}"))
    }
}

/// See the module.
pub(super) struct Api {
    http: ureq::Agent,
    base: Arc<str>,
    authorization: SecretString,
    turns: Arc<Semaphore>,
}

impl Api {
    pub(super) fn new(base: &str, secret_key: &SecretString) -> Self {
        let http =
            http_client(TIMEOUT).max_idle_connections(MAX_REQUESTS).max_idle_connections_per_host(MAX_REQUESTS).build();
        let login = STANDARD.encode(format!("{}:", secret_key.expose_secret()));
        let authorization = format!("Basic {login}").into();
        Self { http: http.into(), base: base.into(), authorization, turns: Arc::new(Semaphore::new(MAX_REQUESTS)) }
    }

    /// Reads.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: String) -> Result<T, StripeError> {
        self.call(path, None).await
    }

    /// Has something done, once for a key.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: String,
        key: String,
        form: Vec<(&'static str, String)>,
    ) -> Result<T, StripeError> {
        self.call(path, Some((key, form))).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        path: String,
        post: Option<(String, Vec<(&'static str, String)>)>,
    ) -> Result<T, StripeError> {
        let busy = || StripeError::Busy("too many requests of ours wait".to_owned());
        let turn = tokio::time::timeout(TURN_PATIENCE, self.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| busy())?.map_err(|_| busy())?;
        let (http, url, authorization) =
            (self.http.clone(), format!("{}{path}", self.base), self.authorization.clone());
        // The turn goes with the thread: who gives up waiting does not end the request.
        let request = move || {
            let _turn = turn;
            send(&http, &url, authorization.expose_secret(), post)
        };
        let answered = tokio::task::spawn_blocking(request).await;
        let (status, headers, body) = answered.map_err(|error| StripeError::NoAnswer(error.to_string()))??;
        judge(status, &headers, &body)?;
        serde_json::from_str(&body)
            .map_err(|error| StripeError::NoAnswer(format!("an answer that is not understood: {error}")))
    }
}

type Answer = (u16, ureq::http::HeaderMap, String);

fn send(
    http: &ureq::Agent,
    url: &str,
    authorization: &str,
    post: Option<(String, Vec<(&'static str, String)>)>,
) -> Result<Answer, StripeError> {
    let no_answer = |error: ureq::Error| StripeError::NoAnswer(error.to_string());
    let answered = match post {
        None => http.get(url).header("authorization", authorization).header("stripe-version", API_VERSION).call(),
        Some((key, form)) => {
            let request = http.post(url).header("authorization", authorization).header("stripe-version", API_VERSION);
            request.header("idempotency-key", key).send_form(form)
        }
    };
    let mut answered = answered.map_err(no_answer)?;
    let body = answered.body_mut().with_config().limit(MAX_BYTES).read_to_string().map_err(no_answer)?;
    Ok((answered.status().as_u16(), answered.headers().clone(), body))
}

/// What an answer means.
fn judge(status: u16, headers: &ureq::http::HeaderMap, body: &str) -> Result<(), StripeError> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    let error = serde_json::from_str(body).map_or(Value::Null, |body: Value| body["error"].clone());
    let word = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    let (kind, message) = (word("type"), word("message"));
    let code = [word("code"), kind.clone()].into_iter().find(|word| !word.is_empty()).unwrap_or_default();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let answer = format!("answered {status} {code}");
    Err(match status {
        // 409: another request under the same key is under way.
        409 | 429 => StripeError::Busy(answer),
        // Somebody on the way answers so, who keeps nothing.
        408 | 502..=504 => StripeError::NoAnswer(answer),
        500.. if header("stripe-should-retry") == Some("true") => StripeError::NoAnswer(answer),
        500.. => StripeError::Spent(answer),
        // The same key, and something else is asked for. It is used up as well.
        _ if kind == "idempotency_error" => StripeError::Spent(answer),
        _ => StripeError::Refused { code: if code.is_empty() { status.to_string() } else { code }, message },
    })
}

#[cfg(test)]
mod tests {
    use ureq::http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn what_may_be_repeated_and_what_may_not() {
        let with = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(ureq::http::HeaderName::from_static(name), HeaderValue::from_static(value))])
        };
        let none = HeaderMap::new();
        let body = |kind: &str, code: &str| format!(r#"{{"error":{{"type":"{kind}","code":"{code}","message":"m"}}}}"#);
        assert!(judge(200, &none, "").is_ok());
        for status in [408, 502, 503, 504] {
            assert!(matches!(judge(status, &none, "<html>"), Err(StripeError::NoAnswer(_))), "{status}");
        }
        assert!(matches!(judge(500, &none, ""), Err(StripeError::Spent(_))));
        assert!(matches!(judge(500, &with("stripe-should-retry", "true"), ""), Err(StripeError::NoAnswer(_))));
        assert!(matches!(judge(400, &none, &body("idempotency_error", "")), Err(StripeError::Spent(_))));
        assert!(matches!(judge(409, &none, &body("x", "idempotency_key_in_use")), Err(StripeError::Busy(_))));
        assert!(matches!(judge(429, &none, ""), Err(StripeError::Busy(_))));
        for (status, body, expected) in [
            (400, body("invalid_request_error", "amount_too_small"), "amount_too_small"),
            (401, body("invalid_request_error", ""), "invalid_request_error"),
            (404, "not JSON".to_owned(), "404"),
            (302, String::new(), "302"),
        ] {
            let refused = judge(status, &none, &body).unwrap_err();
            assert_eq!(refused.code(), Some(expected), "{status} {body}");
        }
    }
}
