//! Endpoints of webhooks in tests.

use serde_json::{Value, json};

use crate::app::TestApp;
pub use crate::receiver::{Behaviour, Receiver};

/// Endpoints may be at this machine, and tries follow each other soon.
pub async fn with_webhooks(app: &mut TestApp, retry_seconds: &[u32]) {
    app.config.webhooks.allow_private = true;
    app.config.webhooks.retry_seconds = retry_seconds.to_vec();
    app.restart().await;
}

impl Receiver {
    /// Registers it for these types; none: for all.
    pub async fn register(&self, app: &TestApp, events: &[&str]) -> Value {
        let mut request = json!({"url": self.url()});
        if !events.is_empty() {
            request["events"] = json!(events);
        }
        app.client.post("/admin/webhooks", Some(&app.client.admin()), request).await.is(201)
    }
}

/// A page of deliveries of an endpoint, all of one status or of any.
pub async fn deliveries(app: &TestApp, endpoint: &Value, status: &str) -> Vec<Value> {
    let path = format!("/admin/webhooks/{}/deliveries?limit=100{status}", endpoint["id"]);
    app.client.get(&path, Some(&app.client.admin())).await.is(200)["items"].as_array().unwrap().clone()
}

/// An endpoint as it is now.
pub async fn endpoint(app: &TestApp, of: &Value) -> Value {
    app.client.get(&format!("/admin/webhooks/{}", of["id"]), Some(&app.client.admin())).await.is(200)
}
