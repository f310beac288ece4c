//! The test provider: a page of ours where one pays or declines, to try a shop out. What it tells comes as a real provider's would:
//! signed, over HTTP, and again until it is answered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::model::{Currency, Payment, Timestamp};
use crate::services::standard_webhooks::WebhookKey;

/// What its key is derived for. All instances have the same secret, so they have the same key.
const KEY_LABEL: &str = "seckill test payments";
/// A try.
const TIMEOUT: Duration = Duration::from_secs(12);
/// Tries, some two seconds in all. A real provider goes on for days.
const TRIES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_secs(1))
    .with_max_times(5);
/// Callbacks that are sent at a time: each takes a thread.
const MAX_SENDING: usize = 16;

/// What somebody does on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TestOutcome {
    /// The money comes.
    Pay,
    /// It does not.
    Decline,
}

/// See the module.
pub(in crate::services::payments) struct Test {
    key: Arc<WebhookKey>,
    /// Where we serve, once we do.
    address: OnceLock<SocketAddr>,
    http: ureq::Agent,
    turns: Semaphore,
}

impl Test {
    /// `secret`: that of the tokens.
    pub(super) fn new(secret: &SecretString) -> Self {
        let http = ureq::Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_idle_connections(0)
            // It talks to this process, whatever the environment says of proxies.
            .proxy(None)
            .build();
        let key = Arc::new(WebhookKey::derived(secret.expose_secret().as_bytes(), KEY_LABEL));
        Self { key, address: OnceLock::new(), http: http.into(), turns: Semaphore::new(MAX_SENDING) }
    }

    pub(super) fn key(&self) -> &WebhookKey {
        &self.key
    }

    /// A path, for nobody here knows by which name buyers reach us.
    pub(super) fn redirect_url(&self, payment: &Payment) -> String {
        format!("/pay/test/{}", payment.id)
    }

    /// Where callbacks go.
    pub(in crate::services::payments) fn serves_at(&self, mut address: SocketAddr) {
        // Of all addresses of this machine, one that it has.
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let _ = self.address.set(address);
    }

    /// Tells what somebody did, and waits until that is known.
    pub(in crate::services::payments) async fn tell(
        &self,
        payment: &Payment,
        currency: Currency,
        outcome: TestOutcome,
    ) -> Result<()> {
        let unavailable = |problem: String| Error::Unavailable(format!("the test provider's callback: {problem}"));
        let address = self.address.get().ok_or_else(|| unavailable("HTTP is not served yet".to_owned()))?;
        let _turn = self.turns.acquire().await.map_err(|error| unavailable(error.to_string()))?;
        let kind = match outcome {
            TestOutcome::Pay => "payment.succeeded",
            TestOutcome::Decline => "payment.failed",
        };
        let body = json!({
            "type": kind,
            "timestamp": Timestamp::now(),
            "data": {
                "payment_id": payment.id,
                "reference": format!("test_{}", payment.id),
                "amount_cents": payment.amount_cents,
                "currency": currency,
            },
        });
        let (url, body) = (format!("http://{address}/payments/webhooks/test"), body.to_string());
        // The same for who clicks twice.
        let id = format!("test_{}_{kind}", payment.id);
        let send = || async { self.send(url.clone(), id.clone(), body.clone()).await };
        send.retry(TRIES).sleep(tokio::time::sleep).await.map_err(unavailable)
    }

    async fn send(&self, url: String, id: String, body: String) -> std::result::Result<(), String> {
        let (http, key) = (self.http.clone(), self.key.clone());
        let call = move || {
            let timestamp = (Timestamp::now().unix_ms() / 1000).to_string();
            let signature = key.sign(&id, &timestamp, body.as_bytes());
            let request = http.post(url).content_type("application/json");
            let request = request.header("webhook-id", id).header("webhook-timestamp", timestamp);
            let reply =
                request.header("webhook-signature", signature).send(&body).map_err(|error| error.to_string())?;
            if reply.status() == 200 { Ok(()) } else { Err(format!("answered {}", reply.status())) }
        };
        tokio::task::spawn_blocking(call).await.map_err(|error| error.to_string())?
    }
}
