//! Live events: whoever listens is told the whole truth at once and at each change, all together, and nobody pays for those who do not.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use seckill::config::Backend;
use seckill::model::Timestamp;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::Client;
use crate::monitor::Monitor;
use crate::on_both_backends;
use crate::support::eventually_within;

/// One who listens.
struct Listening {
    reply: reqwest::Response,
    read: String,
}

impl Listening {
    async fn to(client: &Client, path: &str, token: Option<&str>) -> Self {
        let mut request = client.request(Method::GET, path).timeout(Duration::from_secs(60));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), 200, "{reply:?}");
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        assert_eq!(reply.headers()["cache-control"], "no-cache, no-transform");
        assert_eq!(reply.headers()["x-accel-buffering"], "no");
        Self { reply, read: String::new() }
    }

    async fn to_products(client: &Client, ids: impl IntoIterator<Item = i64>) -> Self {
        let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
        Self::to(client, &format!("/events?products={}", ids.join(",")), None).await
    }

    /// What comes next, up to an empty line; `None`: the end.
    async fn piece(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.find("\n\n") {
                return Some(self.read.drain(..end + 2).collect());
            }
            let bytes = self.reply.chunk().await.ok()??;
            self.read.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// The next event; its name must be this.
    async fn event(&mut self, name: &str) -> Value {
        let begin = format!("event: {name}\ndata: ");
        loop {
            let next = tokio::time::timeout(Duration::from_secs(20), self.piece()).await;
            let piece = next.expect("an event").expect("an event before the end");
            if let Some(data) = piece.strip_prefix(&begin) {
                return serde_json::from_str(data).unwrap();
            }
            let is_other =
                ["retry: ", "event: alive\n"].iter().any(|other| piece.starts_with(other)) || piece == ":\n\n";
            assert!(is_other, "{piece:?}");
        }
    }

    /// The first event of which this is true.
    async fn until(&mut self, name: &str, what: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
        let search = async {
            loop {
                let event = self.event(name).await;
                if is_meant(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), search).await.unwrap_or_else(|_| panic!("no event says {what}"))
    }
}

fn time(event: &Value, field: &str) -> Timestamp {
    serde_json::from_value(event[field].clone()).unwrap()
}

on_both_backends! {
    async fn an_event_is_the_whole_truth_at_once_and_at_each_change(app) {
        let id = app.client.new_product(10).await;
        let mut listening = Listening::to_products(&app.client, [id]).await;
        let first = listening.event("product").await;
        let shown = app.client.product(id).await;
        for field in ["id", "remaining", "held", "state", "stock", "starts_at", "ends_at", "sold_out_at", "revision"] {
            assert_eq!(first[field], shown[field], "{field}");
        }
        let age = Timestamp::now().since(time(&first, "server_time"));
        assert!(age < Duration::from_secs(2), "{age:?}");

        let order = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        let held = listening.until("product", "that a unit is held", |event| event["held"] == 1).await;
        assert_eq!(held["remaining"], 9);
        app.client.post(&format!("/orders/{order}/cancel"), Some(&app.client.buyer(7)), json!({})).await.is(200);
        let is_back = |event: &Value| event["remaining"] == 10 && event["held"] == 0;
        listening.until("product", "that it is back", is_back).await;
        app.client.post(&format!("/products/{id}/restock"), Some(&app.client.admin()), json!({"units": 5})).await.is(200);
        listening.until("product", "that there are more", |event| event["stock"] == 15 && event["remaining"] == 15).await;
        app.client.patch(&format!("/products/{id}"), Some(&app.client.admin()), json!({"paused": true})).await.is(200);
        let paused = listening.until("product", "that it is paused", |event| event["state"] == "paused").await;
        assert!(paused["revision"].as_i64() > first["revision"].as_i64(), "{paused}");
    }

    async fn a_sale_opens_and_ends_before_the_eyes_of_those_who_listen(app) {
        let (opens, ends) = (Timestamp::now().after(Duration::from_millis(1_500)), Timestamp::now().after(Duration::from_millis(3_500)));
        let product = json!({"name": "Drop", "price_cents": 5, "stock": 3, "starts_at": opens, "ends_at": ends});
        let id = app.client.post("/products", Some(&app.client.admin()), product).await.is(201)["id"].as_i64().unwrap();
        let mut listening = Listening::to_products(&app.client, [id]).await;
        assert_eq!(listening.event("product").await["state"], "upcoming");
        for (state, since) in [("live", opens), ("ended", ends)] {
            let event = listening.event("product").await;
            assert_eq!(event["state"], state);
            let at = time(&event, "server_time");
            assert!(at >= since && at.since(since) < Duration::from_secs(1), "{state} since {since}, told at {at}");
        }
    }

    async fn a_crowd_of_listeners_sees_a_crowd_of_buyers_and_ends_with_the_truth(app) {
        let (id, other) = (app.client.new_product(50).await, app.client.new_product(5).await);
        let mut all: Vec<Listening> = join_all((0..100).map(|_| Listening::to_products(&app.client, [id, other]))).await;
        join_all((100..300).map(|user| app.client.buy(user, id))).await;
        app.orders_written(id, 50).await;
        let is_over = |event: &Value| event["id"] == id && event["held"] == 50 && !event["sold_out_at"].is_null();
        let last = join_all(all.iter_mut().map(|listening| listening.until("product", "that all is gone", is_over))).await;
        assert!(last.iter().all(|event| event["state"] == "sold_out" && event["remaining"] == 0), "{:?}", last[0]);
        // Nothing is told of one that did not change.
        let silent = all[0].piece();
        assert!(tokio::time::timeout(Duration::from_millis(700), silent).await.is_err());
    }

    async fn an_order_is_told_from_the_promise_to_the_payment(app) {
        let id = app.client.new_product(10).await;
        let order = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        let path = format!("/orders/{order}/events");
        app.client.get(&path, None).await.is_problem(401, "unauthorized");
        app.client.get(&path, Some(&app.client.buyer(8))).await.is_problem(404, "order_not_found");
        let mut listening = Listening::to(&app.client, &path, Some(&app.client.buyer(7))).await;
        let first = listening.event("order").await;
        assert_eq!((&first["id"], &first["product_id"]), (&json!(order), &json!(id)));
        if first["status"] == "queued" {
            assert_eq!(listening.event("order").await["status"], "unpaid");
        }
        let mark = format!("/admin/orders/{order}/mark-paid");
        app.client.post(&mark, Some(&app.client.admin()), json!({"reference": "cash"})).await.is(200);
        let paid = listening.event("order").await;
        assert_eq!(paid, app.client.order(7, &order).await.is(200));
        assert_eq!(paid["status"], "paid");
    }

    async fn what_is_asked_wrongly_is_refused_by_name(app) {
        let id = app.client.new_product(1).await;
        for query in ["", "?products=", "?products=x", "?products=0", "?products=1;2"] {
            app.client.get(&format!("/events{query}"), None).await.is_invalid("products");
        }
        let many: Vec<String> = (1..=21).map(|id| id.to_string()).collect();
        app.client.get(&format!("/events?products={}", many.join(",")), None).await.is_invalid("products");
        app.client.get("/events?products=999998,999999", None).await.is_problem(404, "product_not_found");
        // One that is unknown keeps nobody from hearing of the others, and one that is named twice is told once.
        let mut listening = Listening::to_products(&app.client, [id, 999_999, id]).await;
        assert_eq!(listening.event("product").await["id"], id);
        assert!(tokio::time::timeout(Duration::from_millis(500), listening.piece()).await.is_err());
        let head = app.client.request(Method::HEAD, &format!("/events?products={id}")).send().await.unwrap();
        assert_eq!((head.status().as_u16(), head.headers()["content-type"].to_str().unwrap()), (200, "text/event-stream"));
    }

    async fn a_stop_ends_all_streams_at_once_and_they_do_not_come_back_together(app) {
        let id = app.client.new_product(1).await;
        let mut all = join_all((0..200).map(|_| Listening::to_products(&app.client, [id]))).await;
        let mut pauses = Vec::new();
        for listening in &mut all {
            let retry = listening.piece().await.unwrap();
            pauses.push(retry.trim().strip_prefix("retry: ").unwrap().parse::<u64>().unwrap());
            listening.event("product").await;
        }
        pauses.sort_unstable();
        assert!(pauses[0] >= 1_000 && pauses[199] < 5_000 && pauses[199] - pauses[0] > 2_000, "{pauses:?}");
        let begun = Instant::now();
        let ends = join_all(all.iter_mut().map(Listening::piece));
        let (ends, ()) = tokio::join!(ends, app.stop());
        assert!(ends.iter().all(Option::is_none), "{ends:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }

    async fn a_silence_is_broken_by_a_comment_and_who_is_gone_is_noticed(app) {
        let id = app.client.new_product(1).await;
        let mut listening = Listening::to_products(&app.client, [id]).await;
        listening.event("product").await;
        let begun = Instant::now();
        assert_eq!(listening.piece().await.as_deref(), Some(":\n\n"));
        assert!((13..18).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        // Browsers do not tell a page of a comment.
        let alive = listening.event("alive").await;
        assert!(Timestamp::now().since(time(&alive, "server_time")) < Duration::from_secs(2), "{alive}");
        let listeners = || async {
            app.client.get("/admin/live", Some(&app.client.admin())).await.is(200)["listeners"].as_i64().unwrap()
        };
        assert_eq!(listeners().await, 1);
        drop(listening);
        eventually_within(35, "nobody listens any more", || async { listeners().await == 0 }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_room_for_so_many_and_the_next_one_is_told_to_come_again() {
    let two = |config: &mut seckill::config::Config| config.limits.listeners = 2;
    TestApp::run_with(Backend::Embedded, two, async |app: &mut TestApp| {
        let id = app.client.new_product(1).await;
        let path = format!("/events?products={id}");
        let first = Listening::to_products(&app.client, [id]).await;
        let _second = Listening::to_products(&app.client, [id]).await;
        let third = app.client.get(&path, None).await;
        third.is_problem(503, "unavailable");
        assert!(third.headers.contains_key("retry-after"));
        // Those who listen to orders have places of their own.
        let order = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        let mut own = Listening::to(&app.client, &format!("/orders/{order}/events"), Some(&app.client.buyer(7))).await;
        own.event("order").await;
        drop(first);
        eventually_within(35, "there is room again", || async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            app.client.request(Method::GET, &path).send().await.unwrap().status() == 200
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_listen_the_gate_is_asked_once_a_look() {
    TestApp::run(Backend::Distributed, async |app: &mut TestApp| {
        let looks = async |listeners: usize| {
            let id = app.client.new_product(5).await;
            let mut all = join_all((0..listeners).map(|_| Listening::to_products(&app.client, [id]))).await;
            for listening in &mut all {
                listening.event("product").await;
            }
            let monitor = Monitor::start(&app.config.redis).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            let key = format!("{{{id}}}");
            monitor.end(app).await.iter().filter(|line| line.contains(&key) && line.contains("EVALSHA")).count()
        };
        let (few, many) = (looks(1).await, looks(300).await);
        // Five looks a second; the sweeper and its like look as well, now and then.
        assert!(few <= 20 && many <= 20, "{few} looks for one listener, {many} for 300, in three seconds");
    })
    .await;
}
