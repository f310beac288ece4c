//! Payments are begun, looked at, noted by hand, and made on the test provider's page.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, redirect};
use seckill::config::{Backend, Provider};
use seckill::model::{OrderId, ProductId, Purchase, Quantity};
use seckill::stock::StockGate;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::Client;
use crate::on_both_backends;
use crate::provider::{Callback, begun, events, external, history, metric, order, payment, product, standing, start};

const BACKENDS: [Backend; 2] = [Backend::Embedded, Backend::Distributed];

/// What somebody does on the page; the status, and where it leads.
async fn submit(app: &TestApp, path: &str, form: &'static str) -> (u16, String) {
    let browser = reqwest::Client::builder().redirect(redirect::Policy::none()).build().unwrap();
    let (client, request) = app.client.request(Method::POST, path).body(form).build_split();
    drop(client);
    let mut request = request.unwrap();
    let form_type = reqwest::header::HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert("content-type", form_type);
    let reply = browser.execute(request).await.unwrap();
    let to = reply.headers().get("location").map_or("", |to| to.to_str().unwrap()).to_owned();
    (reply.status().as_u16(), to)
}

async fn page(app: &TestApp, path: &str) -> (reqwest::header::HeaderMap, String) {
    let reply = app.client.request(Method::GET, path).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    (reply.headers().clone(), reply.text().await.unwrap())
}

async fn listed(app: &TestApp, user: i64, order: &str) -> Vec<Value> {
    let page = app.client.get(&format!("/orders/{order}/payments"), Some(&app.client.buyer(user))).await.is(200);
    assert_eq!(page["next_cursor"], Value::Null);
    page["items"].as_array().unwrap().clone()
}

on_both_backends! {
    async fn a_buyer_who_asks_for_an_order_too_often_is_told_so_however_they_ask(app) {
        let id = product(app, json!({})).await;
        let order = order(app, 7, id).await;
        let buyer = app.client.buyer(7);
        let payment = start(app, 7, &order).await.body["id"].as_str().unwrap().to_owned();
        // Each reply is held against the description of its operation.
        for (method, path) in [
            (Method::GET, format!("/orders/{order}")),
            (Method::GET, format!("/orders/{order}/payments")),
            (Method::POST, format!("/orders/{order}/payments")),
            (Method::GET, format!("/payments/{payment}")),
            (Method::POST, format!("/orders/{order}/cancel")),
        ] {
            let ask = || app.client.call(method.clone(), &path, Some(&buyer), None);
            let replies = join_all((0..60).map(|_| ask())).await;
            let refused = replies.iter().find(|reply| reply.status == 429);
            refused.unwrap_or_else(|| panic!("{method} {path}: {replies:?}")).is_problem(429, "rate_limited");
        }
    }

    async fn a_payment_is_begun_once_and_seen_by_its_buyer(app) {
        let id = product(app, json!({"currency": "EUR", "max_per_order": 2})).await;
        let path = format!("/seckill/{id}");
        let order = app.client.post(&path, Some(&app.client.buyer(7)), json!({"quantity": 2})).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.orders_written(id, 1).await;
        assert_eq!(listed(app, 7, &order).await, [] as [Value; 0]);
        let replies = join_all((0..20).map(|_| start(app, 7, &order))).await;
        let made = replies.iter().filter(|reply| reply.status == 201).count();
        assert_eq!(made, 1, "{replies:?}");
        let begun = replies[0].body.clone();
        let location = format!("/payments/{}", begun["id"].as_str().unwrap());
        for reply in replies {
            assert!(matches!(reply.status, 200 | 201), "{reply:?}");
            assert_eq!((&reply.body, reply.headers["location"].to_str().unwrap()), (&begun, location.as_str()));
        }
        assert_eq!(begun["redirect_url"], format!("/pay/test/{}", begun["id"].as_str().unwrap()));
        let fields = ["id", "order_id", "provider", "status", "amount_cents", "currency", "reference", "redirect_url", "created_at", "updated_at"];
        let mut shown: Vec<&str> = begun.as_object().unwrap().keys().map(String::as_str).collect();
        shown.sort_unstable();
        let mut expected = fields.to_vec();
        expected.sort_unstable();
        assert_eq!(shown, expected);
        assert_eq!(
            json!([begun["order_id"], begun["provider"], begun["status"], begun["amount_cents"], begun["currency"], begun["reference"]]),
            json!([order, "test", "pending", 3980, "EUR", null])
        );
        assert_eq!(app.client.get(&location, Some(&app.client.buyer(7))).await.is(200), begun);
        assert_eq!(app.client.get(&location, Some(&app.client.admin())).await.is(200), begun);
        assert_eq!(listed(app, 7, &order).await, [begun]);
        app.client.get(&location, Some(&app.client.buyer(8))).await.is_problem(404, "payment_not_found");
        app.client.get(&location, None).await.is_problem(401, "unauthorized");
        app.client.get(&format!("/payments/{}", uuid::Uuid::now_v7()), Some(&app.client.buyer(7))).await.is_problem(404, "payment_not_found");
        app.client.get("/payments/1", Some(&app.client.buyer(7))).await.is_invalid("id");
        start(app, 8, &order).await.is_problem(404, "order_not_found");
        start(app, 1, &order).await.is_problem(404, "order_not_found");
        start(app, 7, &uuid::Uuid::now_v7().to_string()).await.is_problem(404, "order_not_found");
        app.client.get(&format!("/orders/{order}/payments"), Some(&app.client.buyer(8))).await.is_problem(404, "order_not_found");
        let path = format!("/orders/{order}/payments");
        app.client.call(Method::POST, &path, None, None).await.is_problem(401, "unauthorized");
        app.client.post(&path, Some(&app.client.buyer(7)), json!({"provider": "test"})).await.is_invalid("provider");
        assert_eq!(metric(app, r#"seckill_payments_total{provider="test",status="pending"}"#).await, Some(1.0));
    }

    async fn only_an_unpaid_order_with_time_left_can_be_paid(app) {
        let id = product(app, json!({})).await;
        let cancelled = order(app, 7, id).await;
        app.client.call(Method::POST, &format!("/orders/{cancelled}/cancel"), Some(&app.client.buyer(7)), None).await.is(200);
        let refused = start(app, 7, &cancelled).await;
        refused.is_problem(409, "not_payable");
        assert_eq!(refused.body["order_status"], "cancelled");

        // Its provider would end it ten seconds before we do.
        let short = product(app, json!({"payment_window_seconds": 9})).await;
        let short = order(app, 7, short).await;
        let refused = start(app, 7, &short).await;
        refused.is_problem(409, "not_payable");
        assert_eq!(refused.body["order_status"], "unpaid");

        let endless = product(app, json!({"payment_window_seconds": null})).await;
        let (paid, first) = begun(app, 8, endless).await;
        assert_eq!(app.client.order(8, &paid).await.is(200)["expires_at"], Value::Null);
        Callback::of(&first, "succeeded").send(app).await.is(200);
        let refused = start(app, 8, &paid).await;
        refused.is_problem(409, "not_payable");
        assert_eq!(refused.body["order_status"], "paid");
    }

    async fn new_products_get_the_time_to_pay_that_is_configured(app) {
        let window = async |app: &TestApp, more| { let id = product(app, more).await; app.client.product(id).await["payment_window_seconds"].clone() };
        assert_eq!(window(app, json!({})).await, 900);
        assert_eq!(window(app, json!({"payment_window_seconds": 60})).await, 60);
        assert_eq!(window(app, json!({"payment_window_seconds": null})).await, Value::Null);
        app.config.payments.provider = Provider::None;
        app.restart().await;
        assert_eq!(window(app, json!({})).await, Value::Null);
        assert_eq!(window(app, json!({"payment_window_seconds": 60})).await, 60);
    }

    async fn an_administrator_notes_a_payment_and_owes_it_when_the_order_is_called_off(app) {
        let id = product(app, json!({})).await;
        let (order, pending) = begun(app, 7, id).await;
        let admin = app.client.admin();
        app.client.post(&format!("/admin/orders/{order}/mark-paid"), Some(&admin), json!({"reference": "transfer 4711"})).await.is(200);
        let items = listed(app, 7, &order).await;
        assert_eq!(items.len(), 2);
        let manual = &items[0];
        assert_eq!(
            json!([manual["provider"], manual["status"], manual["amount_cents"], manual["currency"], manual["reference"], manual["redirect_url"]]),
            json!(["manual", "succeeded", 1990, "USD", "transfer 4711", null])
        );
        // One transfer may pay two orders.
        let (other, _) = begun(app, 8, id).await;
        app.client.post(&format!("/admin/orders/{other}/mark-paid"), Some(&admin), json!({"reference": "transfer 4711"})).await.is(200);
        app.client.post(&format!("/admin/orders/{order}/mark-paid"), Some(&admin), json!({"reference": "again"})).await.is_problem(409, "not_payable");
        assert_eq!(listed(app, 7, &order).await.len(), 2, "a refused note leaves no payment");

        // The buyer has paid as well.
        Callback::of(&pending, "succeeded").send(app).await.is(200);
        assert_eq!(standing(app, &order, &pending).await, ("paid".to_owned(), "refund_due".to_owned()));
        app.client.post(&format!("/admin/orders/{order}/cancel"), Some(&admin), json!({"reason": "damaged"})).await.is(200);
        assert_eq!(payment(app, manual).await["status"], "refund_due");
        assert_eq!(history(app, &order).await, [json!(["unpaid", "paid", "admin", "transfer 4711"]), json!(["paid", "cancelled", "admin", "damaged"])]);
        // Of what was never paid nothing is owed.
        let (unpaid, begun) = begun(app, 9, id).await;
        app.client.post(&format!("/admin/orders/{unpaid}/cancel"), Some(&admin), json!({})).await.is(200);
        assert_eq!(standing(app, &unpaid, &begun).await, ("cancelled".to_owned(), "pending".to_owned()));
        app.balanced(id).await;
    }

    async fn one_pays_or_declines_on_the_test_page(app) {
        let id = product(app, json!({"name": "<b>Boot & \"Shoe\"</b>"})).await;
        let (paid, first) = begun(app, 7, id).await;
        let path = first["redirect_url"].as_str().unwrap().to_owned();
        let (headers, html) = page(app, &path).await;
        assert_eq!(headers["content-type"], "text/html; charset=utf-8");
        assert_eq!(headers["cache-control"], "no-store");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && policy.contains("form-action 'self'"), "{policy}");
        assert!(html.contains("<title>Pay 19.90 USD</title>") && html.contains("value=\"pay\"") && html.contains("value=\"decline\""), "{html}");
        assert!(html.contains("&#60;b&#62;Boot &#38; &#34;Shoe&#34;&#60;/b&#62;") && !html.contains("<b>"), "{html}");

        assert_eq!(submit(app, &path, "outcome=pay").await, (303, path.clone()));
        assert_eq!(standing(app, &paid, &first).await, ("paid".to_owned(), "succeeded".to_owned()));
        let (_, html) = page(app, &path).await;
        assert!(html.contains("<title>Paid</title>") && !html.contains("<form"), "{html}");
        let reference = format!("test_{}", first["id"].as_str().unwrap());
        assert_eq!(history(app, &paid).await, [json!(["unpaid", "paid", "provider", reference])]);
        for form in ["outcome=pay", "outcome=decline"] {
            assert_eq!(submit(app, &path, form).await.0, 303, "again");
        }
        assert_eq!((events(app).await, standing(app, &paid, &first).await.1.as_str()), (1, "succeeded"));

        let (order, first) = begun(app, 8, id).await;
        let path = first["redirect_url"].as_str().unwrap();
        for form in ["", "outcome=", "outcome=perhaps", "pay"] {
            assert_eq!(submit(app, path, form).await.0, 400, "{form}");
        }
        assert_eq!(submit(app, path, "outcome=decline").await.0, 303);
        assert_eq!(standing(app, &order, &first).await, ("unpaid".to_owned(), "failed".to_owned()));
        let second = start(app, 8, &order).await.is(201);
        assert_ne!(second["id"], first["id"]);
        assert_eq!(submit(app, second["redirect_url"].as_str().unwrap(), "outcome=pay").await.0, 303);
        assert_eq!(standing(app, &order, &second).await, ("paid".to_owned(), "succeeded".to_owned()));
        // Whoever comes from the shop's own pages goes back there.
        let (order, third) = begun(app, 9, id).await;
        let from_the_shop = format!("{}?shop", third["redirect_url"].as_str().unwrap());
        let back = format!("/shop/orders/{order}");
        assert!(page(app, &from_the_shop).await.1.contains(&format!("href=\"{back}\"")));
        assert_eq!(submit(app, &from_the_shop, "outcome=pay").await, (303, back));
        let nobodys = format!("/pay/test/{}", uuid::Uuid::now_v7());
        app.client.get(&nobodys, None).await.is_problem(404, "payment_not_found");
        app.balanced(id).await;
    }
}

/// The shop's own service: its address, its callbacks, and nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_s_own_payment_service_is_led_to_and_believed() {
    for backend in BACKENDS {
        TestApp::run_with(backend, external, async |app| {
            let id = product(app, json!({})).await;
            let (order, begun) = begun(app, 7, id).await;
            let payment_id = begun["id"].as_str().unwrap();
            assert_eq!(begun["redirect_url"], format!("https://pay.example/{order}?p={payment_id}&a=1990&c=USD"));
            assert_eq!(begun["provider"], "external");
            for nobody in ["test", "stripe", "External", "manual"] {
                let path = format!("/payments/webhooks/{nobody}");
                app.client.post(&path, None, json!({})).await.is_problem(404, "not_found");
            }
            app.client.get("/payments/webhooks/external", None).await.is_problem(405, "method_not_allowed");
            app.client.get(&format!("/pay/test/{payment_id}"), None).await.is_problem(404, "not_found");
            Callback::of(&begun, "succeeded").send(app).await.is(200);
            assert_eq!(standing(app, &order, &begun).await, ("paid".to_owned(), "succeeded".to_owned()));
            let now = payment(app, &begun).await;
            assert_eq!(json!([now["redirect_url"], now["reference"]]), json!([null, format!("pi_{payment_id}")]));
        })
        .await;
    }
}

/// A payment of the provider that was configured before is in nobody's way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_provider_begins_another_payment() {
    TestApp::run(Backend::Embedded, async |app| {
        let id = product(app, json!({})).await;
        let (order, first) = begun(app, 7, id).await;
        external(&mut app.config);
        app.restart().await;
        let second = start(app, 7, &order).await.is(201);
        assert_eq!(
            (&second["provider"], payment(app, &first).await["status"].clone()),
            (&json!("external"), json!("failed"))
        );
        // It is not this provider's.
        Callback::of(&first, "succeeded").send(app).await.is(200);
        assert_eq!(standing(app, &order, &first).await, ("unpaid".to_owned(), "failed".to_owned()));
        assert_eq!(events(app).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_takes_money_no_payment_begins() {
    let none = |config: &mut seckill::config::Config| config.payments.provider = Provider::None;
    // The test provider does not count where others can reach it.
    let public = |config: &mut seckill::config::Config| config.server.host = "0.0.0.0".to_owned();
    for configure in [none, public] {
        TestApp::run_with(Backend::Embedded, configure, async |app| {
            let id = product(app, json!({})).await;
            let order = order(app, 7, id).await;
            assert_eq!(app.client.order(7, &order).await.is(200)["expires_at"], Value::Null);
            start(app, 7, &order).await.is_problem(409, "payments_off");
            app.client.post("/payments/webhooks/test", None, json!({})).await.is_problem(404, "not_found");
            app.client.get(&format!("/pay/test/{}", uuid::Uuid::now_v7()), None).await.is_problem(404, "not_found");
        })
        .await;
    }
}

/// The page's callback finds this process also where it listens on every address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_test_provider_may_be_allowed_where_others_can_reach_it() {
    let configure = |config: &mut seckill::config::Config| {
        config.server.host = "0.0.0.0".to_owned();
        config.payments.allow_test = true;
    };
    TestApp::run_with(Backend::Embedded, configure, async |app| {
        let id = product(app, json!({})).await;
        let (order, begun) = begun(app, 7, id).await;
        assert_eq!(submit(app, begun["redirect_url"].as_str().unwrap(), "outcome=pay").await.0, 303);
        assert_eq!(standing(app, &order, &begun).await, ("paid".to_owned(), "succeeded".to_owned()));
    })
    .await;
}

/// What is signed by one instance is believed by another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_take_each_other_s_callbacks() {
    TestApp::run(Backend::Distributed, async |app| {
        let other = seckill::app::RunningApp::start(&app.config).await.unwrap();
        let id = product(app, json!({})).await;
        let (order, begun) = begun(app, 7, id).await;
        let first = std::mem::replace(&mut app.client, Client::new(other.address(), &app.config));
        assert_eq!(submit(app, begun["redirect_url"].as_str().unwrap(), "outcome=pay").await.0, 303);
        app.client = first;
        assert_eq!(standing(app, &order, &begun).await, ("paid".to_owned(), "succeeded".to_owned()));
        // The same callback at both at once.
        let (order, begun) = crate::provider::begun(app, 8, id).await;
        let callback = Callback::of(&begun, "succeeded");
        let replies = join_all((0..20).map(|_| callback.send(app))).await;
        assert!(replies.iter().all(|reply| reply.status == 200), "{replies:?}");
        assert_eq!(history(app, &order).await.len(), 1);
        other.stop().await;
    })
    .await;
}

/// What was promised and is not written cannot be paid yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_not_written_yet_is_paid_later() {
    TestApp::run(Backend::Distributed, async |app| {
        let id = product(app, json!({})).await;
        let gate = StockGate::redis(&app.config.redis, 1).unwrap();
        let product = ProductId::try_from(id).unwrap();
        let purchase =
            Purchase { order_id: OrderId::draw(product), user_id: 7.try_into().unwrap(), quantity: Quantity::ONE };
        gate.reserve(product, &[purchase.into()]).await.unwrap();
        let queued = purchase.order_id.to_string();
        let refused = start(app, 7, &queued).await;
        refused.is_problem(503, "unavailable");
        assert_eq!(refused.headers["retry-after"], "1");
        assert_eq!(listed(app, 7, &queued).await, [] as [Value; 0]);
        crate::support::eventually_within(25, "it is written and can be paid", || async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            start(app, 7, &queued).await.status == 201
        })
        .await;
    })
    .await;
}

/// The example of docs/operations.md, as a shop would paste it: openssl signs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_of_the_documents_is_believed() {
    let page = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md"));
    let page = page.unwrap();
    let (_, section) = page.split_once("## Your own payment service").unwrap();
    let script = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
    TestApp::run_with(Backend::Embedded, external, async |app| {
        let id = product(app, json!({"price_cents": 19_900})).await;
        let (order, begun) = begun(app, 7, id).await;
        let mut shell = tokio::process::Command::new("sh");
        shell.arg("-c").arg(format!("set -e\n{script}")).env("API", app.client.base());
        shell.env("PAYMENT", begun["id"].as_str().unwrap());
        let output = shell.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with("HTTP/1.1 200"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(standing(app, &order, &begun).await, ("paid".to_owned(), "succeeded".to_owned()));
    })
    .await;
}
