//! How webhooks are sent: again until they are taken, to the addresses that are allowed, and to no endpoint at the cost of another.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::listening::{Behaviour, Receiver, deliveries, endpoint, with_webhooks};
use crate::on_both_backends;
use crate::provider::{metric, order, product};
use crate::support::{eventually, eventually_within};

fn answer(status: u16) -> Behaviour {
    Behaviour::Answer(status, String::new())
}

/// The one delivery of an endpoint, once there is one.
async fn only(app: &TestApp, of: &Value) -> Value {
    let found = deliveries(app, of, "").await;
    assert!(found.len() <= 1, "{found:?}");
    found.first().cloned().unwrap_or_default()
}

/// Has something happen that every endpoint here is registered for.
async fn happens(app: &TestApp) -> i64 {
    product(app, json!({})).await
}

on_both_backends! {
    async fn what_is_not_taken_comes_again_as_configured_and_is_given_up_in_the_end(app) {
        with_webhooks(app, &[0, 1, 2]).await;
        for (status, error) in [(500, "answered 500"), (307, "answered 307; redirects are not followed"), (404, "answered 404")] {
            let elsewhere = Receiver::start().await;
            let to = format!("location: {}\r\n", elsewhere.url());
            let receiver = Receiver::behaving(move |_, _| Behaviour::Answer(status, to.clone())).await;
            let registered = receiver.register(app, &["product.changed"]).await;
            happens(app).await;
            eventually("it is given up", || async { only(app, &registered).await["status"] == "failed" }).await;
            let told = receiver.all();
            assert_eq!(told.len(), 3, "{status}");
            assert!(told.iter().all(|got| got.id() == told[0].id() && got.raw == told[0].raw));
            let pauses = [told[1].at - told[0].at, told[2].at - told[1].at];
            assert!(pauses[0] >= Duration::from_millis(950) && pauses[1] >= Duration::from_millis(1950), "{pauses:?}");
            assert!(pauses[0] < Duration::from_secs(3) && pauses[1] < Duration::from_secs(4), "{pauses:?}");
            let stamps: Vec<i64> = told.iter().map(|got| got.headers["webhook-timestamp"].parse().unwrap()).collect();
            assert!(stamps[0] < stamps[2], "the time is that of the try: {stamps:?}");
            assert!(elsewhere.all().is_empty(), "a redirect is not followed");
            let delivery = only(app, &registered).await;
            assert_eq!(json!([delivery["tries"], delivery["last_status"], delivery["last_error"], delivery["next_try_at"]]), json!([3, status, error, null]));
            assert!(endpoint(app, &registered).await["failing_since"].is_string());

            // By hand, once more.
            receiver.behave(|_, _| answer(200));
            let path = format!("/admin/webhooks/{}/deliveries/{}/retry", registered["id"], delivery["id"]);
            app.client.call(Method::POST, &path, Some(&app.client.admin()), None).await.is(202);
            receiver.got("product.changed", 4).await;
            let delivery = only(app, &registered).await;
            assert_eq!(json!([delivery["status"], delivery["tries"], delivery["last_error"]]), json!(["delivered", 4, null]));
            assert_eq!(endpoint(app, &registered).await["failing_since"], Value::Null);
            app.client.call(Method::DELETE, &format!("/admin/webhooks/{}", registered["id"]), Some(&app.client.admin()), None).await;
        }
        assert_eq!(metric(app, r#"seckill_webhook_tries_total{outcome="refused"}"#).await, Some(9.0));
        assert_eq!(metric(app, "seckill_webhooks_given_up_total").await, Some(3.0));
    }

    async fn bad_answers_are_failures_and_an_endless_body_is_none(app) {
        with_webhooks(app, &[0, 1]).await;
        for (behaviour, error) in [(Behaviour::Garbage, "the answer is no HTTP"), (Behaviour::HangUp, "")] {
            let again = behaviour.clone();
            let receiver = Receiver::behaving(move |number, _| if number == 0 { again.clone() } else { answer(200) }).await;
            let registered = receiver.register(app, &["product.changed"]).await;
            happens(app).await;
            eventually("the first has failed", || async { only(app, &registered).await["tries"].as_i64() >= Some(1) }).await;
            eventually("the second is taken", || async { only(app, &registered).await["status"] == "delivered" }).await;
            assert_eq!(receiver.all().len(), 2, "{behaviour:?} {error}");
            app.client.call(Method::DELETE, &format!("/admin/webhooks/{}", registered["id"]), Some(&app.client.admin()), None).await;
        }
        let receiver = Receiver::behaving(|_, _| Behaviour::Endless).await;
        let registered = receiver.register(app, &["product.changed"]).await;
        happens(app).await;
        eventually("it is taken all the same", || async { only(app, &registered).await["status"] == "delivered" }).await;
        assert_eq!(receiver.all().len(), 1);
        // Nobody is there.
        let nobody = { let receiver = Receiver::start().await; receiver.url() };
        let gone = app.client.post("/admin/webhooks", Some(&app.client.admin()), json!({"url": nobody, "events": ["product.changed"]})).await.is(201);
        happens(app).await;
        eventually("it is given up", || async { only(app, &gone).await["status"] == "failed" }).await;
        let delivery = only(app, &gone).await;
        assert!(delivery["last_status"].is_null() && delivery["last_error"].is_string(), "{delivery}");
    }

    async fn an_endpoint_that_is_silent_or_slow_fails_after_15_seconds_and_delays_no_other(app) {
        with_webhooks(app, &[0, 30]).await;
        let (hanging, dripping, sound) = (
            Receiver::behaving(|_, _| Behaviour::Hang).await,
            Receiver::behaving(|_, _| Behaviour::Drip).await,
            Receiver::start().await,
        );
        let (silent, slow) = (hanging.register(app, &["order.created"]).await, dripping.register(app, &["order.created"]).await);
        sound.register(app, &["order.created"]).await;
        let id = product(app, json!({"stock": 100})).await;
        let begun = Instant::now();
        // More than are under way at a time.
        for user in 1..=20 {
            let before = Instant::now();
            order(app, user, id).await;
            eventually("the sound one is told", || async { sound.all().len() == user as usize }).await;
            assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
        }
        let pace = begun.elapsed() / 20;
        assert_eq!(hanging.all().len(), 8, "so many at a time");
        eventually_within(30, "the first have failed", || async {
            deliveries(app, &silent, "").await.iter().filter(|delivery| delivery["tries"] == 1).count() >= 8
        })
        .await;
        assert!(begun.elapsed() > Duration::from_secs(14), "{:?}", begun.elapsed());
        for of in [&silent, &slow] {
            let failed = deliveries(app, of, "").await;
            let first = failed.iter().find(|delivery| delivery["tries"] == 1).unwrap();
            assert!(first["last_error"].as_str().unwrap().contains("15 seconds"), "{first}");
            assert_eq!(first["status"], "pending");
        }
        eprintln!("one of 20 orders was told in {pace:?} while two endpoints hung");
    }

    async fn retry_after_is_honoured_in_seconds_and_as_a_date(app) {
        with_webhooks(app, &[0, 0, 0]).await;
        for is_date in [false, true] {
            let (value, least) = match is_date {
                false => ("3".to_owned(), Duration::from_millis(2900)),
                // A date has no fractions of seconds.
                true => (http_date(Duration::from_secs(4)), Duration::from_secs(2)),
            };
            let header = format!("retry-after: {value}\r\n");
            let receiver = Receiver::behaving(move |number, _| if number == 0 { Behaviour::Answer(429, header.clone()) } else { answer(200) }).await;
            let registered = receiver.register(app, &["product.changed"]).await;
            happens(app).await;
            eventually("it is taken", || async { only(app, &registered).await["status"] == "delivered" }).await;
            let told = receiver.all();
            let pause = told[1].at - told[0].at;
            assert!(told.len() == 2 && pause >= least && pause < Duration::from_secs(6), "{pause:?}");
            app.client.call(Method::DELETE, &format!("/admin/webhooks/{}", registered["id"]), Some(&app.client.admin()), None).await;
        }
        // For a day at most.
        let receiver = Receiver::behaving(|_, _| Behaviour::Answer(503, "retry-after: 99999999\r\n".to_owned())).await;
        let registered = receiver.register(app, &["product.changed"]).await;
        happens(app).await;
        eventually("it has failed", || async { only(app, &registered).await["tries"] == 1 }).await;
        let next = only(app, &registered).await["next_try_at"].as_str().unwrap().to_owned();
        let (next, now): (seckill::model::Timestamp, _) = (serde_json::from_value(json!(next)).unwrap(), seckill::model::Timestamp::now());
        assert!((Duration::from_secs(86_000)..=Duration::from_secs(86_401)).contains(&next.since(now)), "{next}");
    }

    async fn an_endpoint_that_is_gone_or_fails_for_five_days_is_switched_off(app) {
        with_webhooks(app, &[0, 1, 1]).await;
        let receiver = Receiver::behaving(|_, _| answer(410)).await;
        let registered = receiver.register(app, &["product.changed"]).await;
        happens(app).await;
        eventually("it is off", || async { endpoint(app, &registered).await["active"] == false }).await;
        assert_eq!(endpoint(app, &registered).await["off_reason"], "answered 410");
        happens(app).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(receiver.all().len(), 1);
        // What it was not told waits, and comes when it is on again.
        receiver.behave(|_, _| answer(200));
        let path = format!("/admin/webhooks/{}", registered["id"]);
        let on = app.client.patch(&path, Some(&app.client.admin()), json!({"active": true})).await.is(200);
        assert_eq!((&on["off_reason"], &on["failing_since"]), (&Value::Null, &Value::Null));
        receiver.got("product.changed", 2).await;

        receiver.behave(|_, _| answer(500));
        happens(app).await;
        eventually("it fails", || async { endpoint(app, &registered).await["failing_since"].is_string() }).await;
        // As if that had been five days ago, less a minute, and then more.
        let days_ago = |seconds: u64| seckill::model::Timestamp::now().before(Duration::from_secs(seconds)).to_string().replace(['T', 'Z'], " ");
        let since = |seconds| format!("UPDATE webhook_endpoints SET failing_since = '{}'", days_ago(seconds).trim());
        app.stores.execute(&since(5 * 86_400 - 60)).await;
        happens(app).await;
        eventually("it failed again", || async { deliveries(app, &registered, "&status=failed").await.len() == 2 }).await;
        assert_eq!(endpoint(app, &registered).await["active"], true);
        app.stores.execute(&since(5 * 86_400 + 60)).await;
        happens(app).await;
        eventually("it is off", || async { endpoint(app, &registered).await["active"] == false }).await;
        assert_eq!(endpoint(app, &registered).await["off_reason"], "took nothing for five days");
        eventually("it is counted", || async { metric(app, "seckill_webhooks_off").await == Some(1.0) }).await;
    }

    async fn a_deleted_endpoint_is_told_nothing_more_and_leaves_nothing(app) {
        with_webhooks(app, &[0, 1, 1, 1, 1]).await;
        let receiver = Receiver::behaving(|_, _| answer(500)).await;
        let registered = receiver.register(app, &["order.created"]).await;
        let id = product(app, json!({"stock": 100})).await;
        for user in 1..=20 {
            app.client.buy(user, id).await.is(202);
        }
        eventually("it is told", || async { receiver.all().len() >= 5 }).await;
        let path = format!("/admin/webhooks/{}", registered["id"]);
        assert_eq!(app.client.call(Method::DELETE, &path, Some(&app.client.admin()), None).await.status, 204);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let told = receiver.all().len();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(receiver.all().len(), told);
        for (method, path) in [(Method::GET, path.clone()), (Method::DELETE, path.clone()), (Method::GET, format!("{path}/deliveries"))] {
            app.client.call(method, &path, Some(&app.client.admin()), None).await.is_problem(404, "webhook_not_found");
        }
        assert!(app.stores.number("SELECT COUNT(*) AS n FROM webhook_deliveries").await > 0);
        // Swept at the start, and each ten minutes after it.
        app.restart().await;
        eventually("they are forgotten", || async { app.stores.number("SELECT COUNT(*) AS n FROM webhook_deliveries").await == 0 }).await;
    }

    async fn what_is_older_than_a_month_is_forgotten(app) {
        with_webhooks(app, &[0]).await;
        let receiver = Receiver::behaving(|number, _| answer(if number == 0 { 500 } else { 200 })).await;
        let registered = receiver.register(app, &["product.changed"]).await;
        happens(app).await;
        happens(app).await;
        receiver.got("product.changed", 2).await;
        eventually("both are noted", || async { deliveries(app, &registered, "&status=pending").await.is_empty() }).await;
        let count = async |table: &str| app.stores.number(&format!("SELECT COUNT(*) AS n FROM {table}")).await;
        assert_eq!((count("outbox").await, count("webhook_deliveries").await), (2, 2));
        let old = seckill::model::Timestamp::now().before(Duration::from_secs(30 * 86_400 + 60)).to_string().replace(['T', 'Z'], " ");
        for table in ["outbox", "webhook_deliveries"] {
            app.stores.execute(&format!("UPDATE {table} SET created_at = '{}' WHERE id = (SELECT least FROM (SELECT MIN(id) AS least FROM {table}) AS one)", old.trim())).await;
        }
        app.restart().await;
        eventually("the old ones are forgotten", || async {
            app.stores.number("SELECT COUNT(*) AS n FROM outbox").await == 1
                && app.stores.number("SELECT COUNT(*) AS n FROM webhook_deliveries").await == 1
        })
        .await;
        assert_eq!(deliveries(app, &registered, "").await.len(), 1);
    }

    async fn a_name_that_leads_to_this_machine_is_refused_at_each_connect(app) {
        with_webhooks(app, &[0, 1]).await;
        let receiver = Receiver::start().await;
        let url = receiver.url().replace("127.0.0.1", "localhost");
        let registered = app.client.post("/admin/webhooks", Some(&app.client.admin()), json!({"url": url, "events": ["product.changed"]})).await.is(201);
        happens(app).await;
        receiver.got("product.changed", 1).await;
        // What was registered while it was allowed is not believed when it is not.
        let over_tls = url.replace("http:", "https:");
        let other = app.client.post("/admin/webhooks", Some(&app.client.admin()), json!({"url": over_tls, "events": ["order.created"]})).await.is(201);
        let before = receiver.connections();
        app.config.webhooks.allow_private = false;
        app.restart().await;
        order(app, 7, happens(app).await).await;
        for (of, error) in [(&registered, "url: must begin with https://"), (&other, "its host has an address that is not public")] {
            eventually("it has failed", || async { !deliveries(app, of, "&status=failed").await.is_empty() }).await;
            assert_eq!(deliveries(app, of, "&status=failed").await[0]["last_error"], error);
        }
        assert_eq!((receiver.all().len(), receiver.connections()), (1, before), "nobody even connected");
    }
}

/// A date of HTTP, so far from now.
fn http_date(from_now: Duration) -> String {
    let at = std::time::SystemTime::now() + from_now;
    let seconds = at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    chrono::DateTime::from_timestamp(seconds, 0).unwrap().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
