//! Endpoints of webhooks: how they are registered, changed and shown, and that what they are sent is signed as others understand it.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::listening::{Behaviour, Receiver, deliveries, endpoint, with_webhooks};
use crate::on_both_backends;
use crate::provider::{Callback, begun, order, product};
use crate::signing::sign;

const ALL: [&str; 8] = [
    "order.created",
    "order.paid",
    "order.cancelled",
    "order.expired",
    "order.rejected",
    "payment.refund_due",
    "product.changed",
    "product.sold_out",
];

/// A receiver that verifies with the Standard Webhooks library.
struct Library {
    child: Child,
    secrets: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Library {
    async fn start() -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        let mut command = Command::new(format!("{root}/scripts/standard-webhooks"));
        command.arg(format!("{root}/tests/support/receiver.py"));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut child = child.expect("scripts/standard-webhooks runs");
        let secrets = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port =
            lines.next_line().await.unwrap().expect("the library is there: see what scripts/standard-webhooks says");
        let url = format!("http://127.0.0.1:{}/", port.trim());
        Self { child, secrets, lines, url }
    }

    /// It is to verify with this secret, too.
    async fn knows(&mut self, secret: &str) {
        self.secrets.write_all(format!("{secret}\n").as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    /// What it says of the next webhook.
    async fn next(&mut self) -> Value {
        let line =
            tokio::time::timeout(Duration::from_secs(15), self.lines.next_line()).await.expect("a webhook comes");
        serde_json::from_str(&line.unwrap().unwrap()).unwrap()
    }

    async fn end(mut self) {
        self.child.kill().await.unwrap();
    }
}

on_both_backends! {
    async fn an_endpoint_is_registered_changed_shown_and_deleted(app) {
        with_webhooks(app, &[0]).await;
        let (admin, path) = (app.client.admin(), "/admin/webhooks");
        let reply = app.client.post(path, Some(&admin), json!({"url": "http://127.0.0.1:9/x?key=hush", "description": "Stock"})).await;
        assert_eq!(reply.headers["location"], format!("/admin/webhooks/{}", reply.body["id"]).as_str());
        let made = reply.is(201);
        assert_eq!(json!([made["url"], made["events"], made["active"], made["description"]]), json!(["http://127.0.0.1:9/x?key=hush", ALL, true, "Stock"]));
        let secret = made["secret"].as_str().unwrap();
        assert_eq!(STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap().len(), 32);
        let one = format!("{path}/{}", made["id"]);
        let mut expected = made.clone();
        expected.as_object_mut().unwrap().remove("secret");
        assert_eq!(app.client.get(&one, Some(&admin)).await.is(200), expected, "the secret is shown once");
        assert_eq!(app.client.get(path, Some(&admin)).await.is(200), json!({"items": [expected], "next_cursor": null}));

        let changed = app.client.patch(&one, Some(&admin), json!({"events": ["order.paid"], "active": false, "url": "http://127.0.0.1:9/y"})).await.is(200);
        assert_eq!(json!([changed["url"], changed["events"], changed["active"], changed["off_reason"]]), json!(["http://127.0.0.1:9/y", ["order.paid"], false, null]));
        let rotated = app.client.call(Method::POST, &format!("{one}/rotate-secret"), Some(&admin), None).await.is(200);
        assert!(rotated["secret"].as_str().unwrap() != secret && rotated["old_secret_until"].is_string());
        assert_eq!(app.client.call(Method::DELETE, &one, Some(&admin), None).await.status, 204);
        assert_eq!(app.client.get(path, Some(&admin)).await.is(200)["items"], json!([]));

        let log = app.client.get("/admin/log", Some(&admin)).await.is(200);
        let said: Vec<_> = log["items"].as_array().unwrap().iter().map(|item| (item["action"].as_str().unwrap(), item["object"].as_str().unwrap())).collect();
        let object = format!("webhook {}", made["id"]);
        for (place, action) in ["Deleted a webhook", "Rotated a webhook's secret", "Changed a webhook", "Registered a webhook"].into_iter().enumerate() {
            assert_eq!(said[place], (action, object.as_str()));
        }
        assert!(!log.to_string().contains("hush") && !log.to_string().contains("whsec_"), "{log}");
    }

    async fn what_is_wrong_with_an_endpoint_is_said_by_its_field(app) {
        let (admin, path) = (app.client.admin(), "/admin/webhooks");
        for token in [None, Some(app.client.buyer(7))] {
            let (status, code) = if token.is_some() { (403, "forbidden") } else { (401, "unauthorized") };
            let token = token.as_deref();
            app.client.post(path, token, json!({"url": "https://shop.example"})).await.is_problem(status, code);
            for (method, path) in [
                (Method::GET, "/admin/webhooks"), (Method::GET, "/admin/webhooks/1"), (Method::PATCH, "/admin/webhooks/1"), (Method::DELETE, "/admin/webhooks/1"),
                (Method::POST, "/admin/webhooks/1/test"), (Method::POST, "/admin/webhooks/1/rotate-secret"), (Method::GET, "/admin/webhooks/1/deliveries"),
                (Method::POST, "/admin/webhooks/1/deliveries/1/retry"),
            ] {
                let body = (method == Method::PATCH).then(|| json!({}));
                app.client.call(method, path, token, body).await.is_problem(status, code);
            }
        }
        for (body, field) in [
            (json!({}), "url"), (json!({"url": 7}), "url"), (json!({"url": ""}), "url"), (json!({"url": "http://shop.example/"}), "url"),
            (json!({"url": "https://127.0.0.1/"}), "url"), (json!({"url": "https://2130706433/"}), "url"), (json!({"url": "https://0x7f.1/"}), "url"),
            (json!({"url": "https://[::ffff:10.0.0.1]/"}), "url"), (json!({"url": "https://169.254.169.254/"}), "url"),
            (json!({"url": "https://localhost/"}), "url"), (json!({"url": "https://a.invalid/"}), "url"),
            (json!({"url": "https://8.8.8.8/#x"}), "url"), (json!({"url": "https://u:p@8.8.8.8/"}), "url"),
            (json!({"url": "https://8.8.8.8/", "events": []}), "events"), (json!({"url": "https://8.8.8.8/", "events": ["order.returned"]}), "events"),
            (json!({"url": "https://8.8.8.8/", "events": "order.paid"}), "events"), (json!({"url": "https://8.8.8.8/", "description": "a\u{202e}b"}), "description"),
            (json!({"url": "https://8.8.8.8/", "secret": "whsec_x"}), "secret"),
        ] {
            app.client.post(path, Some(&admin), body.clone()).await.is_invalid(field);
        }
        let made = app.client.post(path, Some(&admin), json!({"url": "https://8.8.8.8/", "events": ["order.paid"]})).await.is(201);
        let one = format!("{path}/{}", made["id"]);
        for (body, field) in [
            (json!({"url": "https://10.0.0.1/"}), "url"), (json!({"url": null}), "url"), (json!({"active": "no"}), "active"), (json!({"active": null}), "active"),
            (json!({"events": []}), "events"), (json!({"secret": "x"}), "secret"),
        ] {
            app.client.patch(&one, Some(&admin), body.clone()).await.is_invalid(field);
        }
        assert_eq!(endpoint(app, &made).await["url"], "https://8.8.8.8/");
        app.client.get("/admin/webhooks/0", Some(&admin)).await.is_invalid("id");
        app.client.get("/admin/webhooks/999", Some(&admin)).await.is_problem(404, "webhook_not_found");
        app.client.patch("/admin/webhooks/999", Some(&admin), json!({})).await.is_problem(404, "webhook_not_found");
        for path in ["/admin/webhooks/999/test", "/admin/webhooks/999/rotate-secret", "/admin/webhooks/999/deliveries/1/retry"] {
            app.client.call(Method::POST, path, Some(&admin), None).await.is_problem(404, "webhook_not_found");
        }
        app.client.call(Method::POST, &format!("{one}/deliveries/999/retry"), Some(&admin), None).await.is_problem(404, "delivery_not_found");
        app.client.call(Method::POST, &format!("{one}/deliveries/x/retry"), Some(&admin), None).await.is_invalid("delivery_id");
        app.client.get(&format!("{one}/deliveries?status=lost"), Some(&admin)).await.is_invalid("status");
        app.client.get(&format!("{one}/deliveries?limit=101"), Some(&admin)).await.is_invalid("limit");
        // A bound.
        for _ in 1..32 {
            app.client.post(path, Some(&admin), json!({"url": "https://8.8.8.8/", "events": ["order.paid"]})).await.is(201);
        }
        app.client.post(path, Some(&admin), json!({"url": "https://8.8.8.8/"})).await.is_problem(409, "too_many_webhooks");
        let first = app.client.get(path, Some(&admin)).await.is(200);
        assert_eq!(first["items"].as_array().unwrap().len(), 20);
        let next = format!("{path}?limit=100&cursor={}", first["next_cursor"].as_str().unwrap());
        let rest = app.client.get(&next, Some(&admin)).await.is(200);
        assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next_cursor"]), (12, &Value::Null));
    }

    async fn deliveries_are_listed_page_by_page(app) {
        with_webhooks(app, &[0]).await;
        let receiver = Receiver::behaving(|number, _| Behaviour::Answer(if number % 3 == 0 { 500 } else { 200 }, String::new())).await;
        let registered = receiver.register(app, &["product.changed"]).await;
        for _ in 0..12 {
            product(app, json!({})).await;
        }
        receiver.got("product.changed", 12).await;
        crate::support::eventually("all are noted", || async { deliveries(app, &registered, "&status=pending").await.is_empty() }).await;
        let all = deliveries(app, &registered, "").await;
        let ids = |items: &[Value]| items.iter().map(|item| item["id"].as_i64().unwrap()).collect::<Vec<_>>();
        assert!(all.len() == 12 && ids(&all).is_sorted_by(|a, b| a > b), "{all:?}");
        for (status, of_all) in [("", all.clone()), ("&status=failed", all.iter().filter(|item| item["status"] == "failed").cloned().collect())] {
            let (mut cursor, mut paged) = (String::new(), Vec::new());
            loop {
                let path = format!("/admin/webhooks/{}/deliveries?limit=5{status}{cursor}", registered["id"]);
                let page = app.client.get(&path, Some(&app.client.admin())).await.is(200);
                paged.extend(page["items"].as_array().unwrap().clone());
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(paged, of_all, "{status}");
        }
        assert_eq!(deliveries(app, &registered, "&status=failed").await.len(), 4);
        let fields = ["id", "event_id", "type", "object_id", "status", "tries", "last_status", "last_error", "last_try_at", "next_try_at", "created_at", "delivered_at"];
        let mut shown: Vec<_> = all[0].as_object().unwrap().keys().map(String::as_str).collect();
        shown.sort_unstable();
        let mut expected = fields.to_vec();
        expected.sort_unstable();
        assert_eq!(shown, expected);
        assert!(all[0]["object_id"].is_i64());
    }

    /// The receiver is the library of Standard Webhooks, which knows nothing of us.
    async fn what_is_sent_is_verified_by_the_library_of_standard_webhooks(app) {
        with_webhooks(app, &[0, 1]).await;
        let mut library = Library::start().await;
        let request = json!({"url": library.url, "events": ["order.paid", "product.changed"]});
        let made = app.client.post("/admin/webhooks", Some(&app.client.admin()), request).await.is(201);
        let secret = made["secret"].as_str().unwrap().to_owned();
        library.knows(&secret).await;
        let id = product(app, json!({"name": "Größe 42 · 日本語 👟"})).await;
        let told = library.next().await;
        assert_eq!(json!([told["fits"], told["document"]["type"], told["document"]["data"]["id"]]), json!([[secret], "product.changed", id]));
        let (paid, payment) = begun(app, 7, id).await;
        Callback::of(&payment, "succeeded").send(app).await.is(200);
        let told = library.next().await;
        assert_eq!(json!([told["fits"], told["document"]["type"], told["document"]["data"]["id"]]), json!([[secret], "order.paid", paid]));
        // Tried out.
        let path = format!("/admin/webhooks/{}", made["id"]);
        let tested = app.client.call(Method::POST, &format!("{path}/test"), Some(&app.client.admin()), None).await.is(202);
        let told = library.next().await;
        assert_eq!(json!([told["fits"], told["id"], told["document"]["type"]]), json!([[secret], tested["event_id"], "webhook.test"]));

        // A new secret signs beside the old one, for a day.
        let rotated = app.client.call(Method::POST, &format!("{path}/rotate-secret"), Some(&app.client.admin()), None).await.is(200);
        let new = rotated["secret"].as_str().unwrap().to_owned();
        library.knows(&new).await;
        app.client.call(Method::POST, &format!("{path}/test"), Some(&app.client.admin()), None).await.is(202);
        assert_eq!(library.next().await["fits"], json!([secret, new]));
        app.stores.execute("UPDATE webhook_endpoints SET old_secret_until = '2026-01-01 00:00:00.000'").await;
        app.client.call(Method::POST, &format!("{path}/test"), Some(&app.client.admin()), None).await.is(202);
        assert_eq!(library.next().await["fits"], json!([new]));
        library.end().await;
    }

    async fn a_test_goes_to_one_endpoint_alone_and_rotation_signs_twice(app) {
        with_webhooks(app, &[0]).await;
        let (one, other) = (Receiver::start().await, Receiver::start().await);
        let made = one.register(app, &["order.paid"]).await;
        other.register(app, &[]).await;
        let path = format!("/admin/webhooks/{}", made["id"]);
        app.client.call(Method::POST, &format!("{path}/test"), Some(&app.client.admin()), None).await.is(202);
        let told = one.got("webhook.test", 1).await.remove(0);
        let signed = |secret: &Value| {
            let key = STANDARD.decode(secret.as_str().unwrap().strip_prefix("whsec_").unwrap()).unwrap();
            let headers = &told.headers;
            sign(&key, &headers["webhook-id"], &headers["webhook-timestamp"], &told.raw)
        };
        assert_eq!(told.headers["webhook-signature"], signed(&made["secret"]));
        let rotated = app.client.call(Method::POST, &format!("{path}/rotate-secret"), Some(&app.client.admin()), None).await.is(200);
        app.client.call(Method::POST, &format!("{path}/test"), Some(&app.client.admin()), None).await.is(202);
        let told = one.got("webhook.test", 2).await.remove(1);
        let signed = |secret: &Value| {
            let key = STANDARD.decode(secret.as_str().unwrap().strip_prefix("whsec_").unwrap()).unwrap();
            sign(&key, &told.headers["webhook-id"], &told.headers["webhook-timestamp"], &told.raw)
        };
        assert_eq!(told.headers["webhook-signature"], format!("{} {}", signed(&rotated["secret"]), signed(&made["secret"])));
        assert!(other.all().is_empty());
        order(app, 7, product(app, json!({})).await).await;
        other.got("order.created", 1).await;
        assert_eq!(one.all().len(), 2);
    }
}
