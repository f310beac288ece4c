//! A payment provider: signs callbacks as Standard Webhooks has it, by other code than ours.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use seckill::config::{Config, Provider};
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::Reply;
use crate::signing::test_key;
pub use crate::signing::{sign, timestamp};
use crate::support::eventually;

/// Of 32 bytes.
pub const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// The shop's own payment service.
pub fn external(config: &mut Config) {
    config.payments.provider = Provider::External;
    config.payments.webhook_secret = SECRET.into();
    config.payments.checkout_url =
        "https://pay.example/{order_id}?p={payment_id}&a={amount_cents}&c={currency}".to_owned();
}

/// What it sends.
#[derive(Debug, Clone)]
pub struct Callback {
    pub id: String,
    pub body: Value,
}

impl Callback {
    /// Tells of a payment as it was shown.
    pub fn of(payment: &Value, kind: &str) -> Self {
        let data = json!({
            "payment_id": payment["id"],
            "reference": format!("pi_{}", payment["id"].as_str().unwrap()),
            "amount_cents": payment["amount_cents"],
            "currency": payment["currency"],
        });
        let body = json!({"type": format!("payment.{kind}"), "timestamp": "2026-11-29T08:00:00Z", "data": data});
        Self { id: format!("evt_{}", uuid::Uuid::new_v4()), body }
    }

    /// The same with other data.
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.body["data"][field] = value.into();
        self
    }

    pub async fn send(&self, app: &TestApp) -> Reply {
        let body = self.body.to_string();
        let now = timestamp(0);
        let signature = sign(&key(&app.config), &self.id, &now, &body);
        send(app, &self.id, &now, &signature, body).await
    }
}

pub async fn send(app: &TestApp, id: &str, timestamp: &str, signature: &str, body: String) -> Reply {
    let provider = if app.config.payments.provider == Provider::External { "external" } else { "test" };
    let request = app.client.request(Method::POST, &format!("/payments/webhooks/{provider}"));
    let request = request.header("webhook-id", id).header("webhook-timestamp", timestamp);
    let request = request.header("webhook-signature", signature).header("content-type", "application/json");
    app.client.send(request.body(body)).await
}

/// The test provider's is made of the secret of the tokens.
pub fn key(config: &Config) -> Vec<u8> {
    match config.payments.provider {
        Provider::External => STANDARD.decode(&SECRET["whsec_".len()..]).unwrap(),
        _ => test_key(config),
    }
}

/// A product with more in it.
pub async fn product(app: &TestApp, more: Value) -> i64 {
    let mut product = json!({"name": "Sneaker", "price_cents": 1990, "stock": 10});
    product.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    app.client.post("/products", Some(&app.client.admin()), product).await.is(201)["id"].as_i64().unwrap()
}

/// An order that is written.
pub async fn order(app: &TestApp, user: i64, product: i64) -> String {
    let order = app.client.buy(user, product).await.is(202)["order_id"].as_str().unwrap().to_owned();
    let row = format!("SELECT COUNT(*) AS n FROM orders WHERE id = X'{}'", order.replace('-', ""));
    eventually("it is written", || async { app.stores.number(&row).await == 1 }).await;
    order
}

/// Begins a payment.
pub async fn start(app: &TestApp, user: i64, order: &str) -> Reply {
    let path = format!("/orders/{order}/payments");
    app.client.call(Method::POST, &path, Some(&app.client.buyer(user)), None).await
}

/// An order and its pending payment.
pub async fn begun(app: &TestApp, user: i64, product: i64) -> (String, Value) {
    let order = order(app, user, product).await;
    let payment = start(app, user, &order).await.is(201);
    (order, payment)
}

/// Another payment of an order that has one: the first fails.
pub async fn begun_again(app: &TestApp, user: i64, order: &str, first: &Value) -> Value {
    Callback::of(first, "failed").send(app).await.is(200);
    start(app, user, order).await.is(201)
}

/// The payment as it is now.
pub async fn payment(app: &TestApp, payment: &Value) -> Value {
    app.client.get(&format!("/payments/{}", payment["id"].as_str().unwrap()), Some(&app.client.admin())).await.is(200)
}

/// Where order and payment stand.
pub async fn standing(app: &TestApp, order: &str, of: &Value) -> (String, String) {
    let order = app.client.get(&format!("/orders/{order}"), Some(&app.client.admin())).await.is(200);
    let word = |value: &Value| value["status"].as_str().unwrap().to_owned();
    (word(&order), word(&payment(app, of).await))
}

/// What became of an order: from, to, by whom, why.
pub async fn history(app: &TestApp, order: &str) -> Vec<Value> {
    let page = app.client.get(&format!("/admin/orders/{order}/history"), Some(&app.client.admin())).await.is(200);
    let change = |item: &Value| json!([item["from"], item["to"], item["by"], item["reason"]]);
    page["items"].as_array().unwrap().iter().map(change).collect()
}

pub async fn events(app: &TestApp) -> i64 {
    app.stores.number("SELECT COUNT(*) AS n FROM payment_events").await
}

pub async fn metric(app: &TestApp, name: &str) -> Option<f64> {
    let text = app.client.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

pub fn stand(order: &str, payment: &str) -> (String, String) {
    (order.to_owned(), payment.to_owned())
}

/// `sold` and `paid` of a product's row.
pub async fn units(app: &TestApp, product: i64) -> (i64, i64) {
    let of = |column: &str| format!("SELECT {column} AS n FROM products WHERE id = {product}");
    (app.stores.number(&of("sold")).await, app.stores.number(&of("paid")).await)
}

pub async fn cancel(app: &TestApp, user: i64, order: &str) {
    app.client
        .call(Method::POST, &format!("/orders/{order}/cancel"), Some(&app.client.buyer(user)), None)
        .await
        .is(200);
}

/// As if it had been begun with time left: one of a short window may not be.
pub async fn with_short_window(app: &TestApp, product: i64, seconds: i64) {
    app.stores
        .execute(&format!(
            "UPDATE product_revisions SET payment_window_seconds = {seconds} WHERE product_id = {product}"
        ))
        .await;
    app.stores.execute("UPDATE payment_deadlines SET due_at = '2026-01-01 00:00:00.000'").await;
}
