//! The HTTP API as a crowd sees it: a reply may be missing, and every reply is held against the contract.

use std::time::Duration;

use reqwest::header::HeaderMap;
use seckill::config::Config;
use seckill::model::Role;
use seckill::services::{Identity, Tokens};
use serde_json::{Value, json};
use uuid::Uuid;

/// A server that leaves a client alone for longer than this has not replied.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Client {
    /// The instances; a buyer comes to any of them.
    urls: Vec<String>,
    http: reqwest::Client,
    tokens: Tokens,
}

/// What a click came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A 202 or a 409 `already_purchased`: this order exists from now on.
    Promised {
        order: Uuid,
    },
    SoldOut,
    /// A 429 or a 503: ask again.
    Later,
    /// Anything that the contract does not know.
    Foreign(String),
    /// No reply, or half of one.
    Nothing,
}

impl Answer {
    /// Whether its buyer knows enough.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Promised { .. } | Self::SoldOut)
    }
}

/// An answer, and status and code of the reply as one counts them.
pub struct Click {
    pub answer: Answer,
    pub label: String,
}

impl Client {
    pub fn new(config: &Config, urls: Vec<String>) -> Self {
        Self::with(config, urls, reqwest::Client::builder())
    }

    /// The same with a new connection for each request.
    pub fn of_newcomers(config: &Config, urls: Vec<String>) -> Self {
        Self::with(config, urls, reqwest::Client::builder().pool_max_idle_per_host(0))
    }

    fn with(config: &Config, urls: Vec<String>, http: reqwest::ClientBuilder) -> Self {
        let http = http.timeout(PATIENCE).no_proxy().build().unwrap();
        Self { urls, http, tokens: Tokens::new(&config.auth.jwt_secret, Duration::from_secs(86_400)) }
    }

    pub fn buyer(&self, user: i64) -> String {
        self.token(user, Role::Buyer)
    }

    pub fn token(&self, user: i64, role: Role) -> String {
        self.tokens.issue(Identity { user_id: user.try_into().unwrap(), role }).unwrap()
    }

    /// Puts a product on sale now.
    pub async fn new_product(&self, stock: i64) -> i64 {
        let product = json!({"name": "Sneaker", "price_cents": 19_900, "stock": stock});
        let request = self.http.post(format!("{}/products", self.urls[0])).json(&product);
        let reply = request.bearer_auth(self.token(1, Role::Admin)).send().await.expect("a reply");
        assert_eq!(reply.status(), 201);
        reply.json::<Value>().await.unwrap()["id"].as_i64().unwrap()
    }

    /// Clicks once, at the instance of that number.
    pub async fn buy(&self, token: &str, product: i64, instance: usize) -> Click {
        let url = format!("{}/seckill/{product}", self.urls[instance % self.urls.len()]);
        match whole(self.http.post(url).bearer_auth(token)).await {
            Some((status, headers, body)) => {
                let answer = judge(status, &headers, &body, product);
                let code = body["code"].as_str().unwrap_or_default();
                Click { answer, label: format!("{status} {code}").trim_end().to_owned() }
            }
            None => Click { answer: Answer::Nothing, label: "no reply".to_owned() },
        }
    }

    /// Status of an order as its buyer sees it: that of the reply, 0 without one, and that of the order.
    pub async fn order(&self, user: i64, order: Uuid) -> (u16, String) {
        let request = self.http.get(format!("{}/orders/{order}", self.urls[0])).bearer_auth(self.buyer(user));
        let (status, _, body) = whole(request).await.unwrap_or_default();
        (status, body["status"].as_str().unwrap_or_default().to_owned())
    }

    /// A number that the first instance's metrics show.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.http.get(format!("{}/metrics", self.urls[0])).send().await.ok()?.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// What can still be bought, if the product is shown.
    pub async fn remaining(&self, product: i64) -> Option<i64> {
        let (status, _, body) = whole(self.http.get(format!("{}/products/{product}", self.urls[0]))).await?;
        body["remaining"].as_i64().filter(|_| status == 200)
    }
}

async fn whole(request: reqwest::RequestBuilder) -> Option<(u16, HeaderMap, Value)> {
    let reply = request.send().await.ok()?;
    let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
    let text = reply.text().await.ok()?;
    Some((status, headers, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

fn judge(status: u16, headers: &HeaderMap, body: &Value, product: i64) -> Answer {
    let foreign = || Answer::Foreign(format!("{status} {body} {headers:?}"));
    let order = body["order_id"].as_str().and_then(|order| Uuid::parse_str(order).ok());
    let kind = if status == 202 { "application/json" } else { "application/problem+json" };
    let of_kind = headers.get("content-type").is_some_and(|value| value == kind);
    if !of_kind || !headers.contains_key("x-request-id") {
        return foreign();
    }
    match (status, body["code"].as_str(), order) {
        (202, None, Some(order)) => {
            let location = headers.get("location").and_then(|value| value.to_str().ok());
            // What it costs and until when it must be paid, tests/api looks at.
            let is_expected = body["product_id"] == product && body["status"] == "queued" && body["quantity"] == 1;
            if is_expected && location == Some(&format!("/orders/{order}")) {
                Answer::Promised { order }
            } else {
                foreign()
            }
        }
        (409, Some("already_purchased"), Some(order)) => Answer::Promised { order },
        (409, Some("sold_out"), _) => Answer::SoldOut,
        (429, Some("rate_limited"), _) | (503, Some("unavailable"), _) if says_when(headers) => Answer::Later,
        _ => foreign(),
    }
}

fn says_when(headers: &HeaderMap) -> bool {
    let seconds = headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    seconds.is_some_and(|seconds| (1..=10).contains(&seconds))
}
