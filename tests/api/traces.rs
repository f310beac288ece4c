//! Traces: a purchase's way from the click to the commit, as an OpenTelemetry collector is told it; and that nobody who buys notices.

use std::time::{Duration, Instant};

use reqwest::Method;
use seckill::config::Backend;
use seckill::model::TrustedProxies;
use serde_json::json;

use crate::app::TestApp;
use crate::broker::Broker;
use crate::client::Reply;
use crate::collector::{Behaviour, Collector, Span};
use crate::command::{Folder, Server, seckill};
use crate::on_both_backends;
use crate::support::eventually_within;

/// As OTLP has them.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

const PARENT: &str = "00f067aa0ba902b7";

fn trace_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

async fn traced(app: &mut TestApp, collector: &Collector, sample_ratio: f64, proxies: &[&str]) {
    app.config.traces.endpoint = collector.url();
    app.config.traces.sample_ratio = sample_ratio;
    app.config.server.trusted_proxies = TrustedProxies::parse(proxies.iter().copied()).unwrap();
    app.restart().await;
}

async fn buy(app: &TestApp, user: i64, product: i64, trace: &str, flags: &str) -> Reply {
    let request = app.client.request(Method::POST, &format!("/seckill/{product}"));
    let request = request.header("traceparent", format!("00-{trace}-{PARENT}-{flags}"));
    app.client.send(request.bearer_auth(app.client.buyer(user))).await
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

/// A count that `/metrics` shows.
async fn count(app: &TestApp, outcome: &str) -> u64 {
    let reply = app.client.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let name = format!("seckill_spans_total{{outcome=\"{outcome}\"}} ");
    reply.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).expect("it is there")
}

on_both_backends! {
    async fn a_purchase_is_one_trace_from_the_click_to_the_commit(app) {
        let collector = Collector::start(Behaviour::Takes).await;
        let product = app.client.new_product(10).await;
        app.config.traces.headers = "Authorization=Bearer%20hunter2,x-tenant=shop".to_owned().into();
        traced(app, &collector, 0.0, &["127.0.0.0/8"]).await;
        let trace = trace_id();
        let clicked_at = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let order = buy(app, 7, product, &trace, "01").await.is(202)["order_id"].as_str().unwrap().to_owned();
        // Beside it, one that nobody traces.
        app.client.buy(8, product).await.is(202);
        let spans = collector.trace(&trace, 4).await;
        app.orders_written(product, 2).await;

        let server = named(&spans, "POST /seckill/{id}");
        let (gate, publish, write) = (named(&spans, "gate"), named(&spans, "publish"), named(&spans, "write order"));
        assert_eq!([server.kind, gate.kind, publish.kind, write.kind], [SERVER, INTERNAL, PRODUCER, CONSUMER]);
        assert_eq!([&*server.parent, &*gate.parent, &*publish.parent, &*write.parent], [PARENT, &server.id, &server.id, &publish.id]);
        assert!(clicked_at <= server.begun && server.begun <= gate.begun && gate.begun <= gate.ended, "{spans:#?}");
        assert!(gate.ended <= publish.begun && publish.begun <= publish.ended && publish.ended <= server.ended, "{spans:#?}");
        assert!(publish.begun <= write.begun && write.begun < write.ended, "{spans:#?}");
        assert!(write.ended > server.begun);

        for (key, value) in [
            ("http.request.method", "POST"), ("http.route", "/seckill/{id}"), ("http.response.status_code", "202"),
            ("url.scheme", "http"), ("seckill.outcome", "accepted"), ("seckill.order_id", &order),
            ("url.path", &format!("/seckill/{product}")), ("seckill.product_id", &product.to_string()),
        ] {
            assert_eq!(server.of(key), value, "{key}");
        }
        assert!(!server.of("seckill.request_id").is_empty());
        assert_eq!((gate.of("seckill.outcome"), gate.of("seckill.gate.purchases")), ("reserved", "1"));
        assert!(gate.of("seckill.gate.waited_seconds").parse::<f64>().unwrap() < 1.0);
        let (system, destination) = match app.config.backend {
            Backend::Embedded => ("seckill", "journal"),
            Backend::Distributed => ("rabbitmq", &*app.config.rabbitmq.queue),
        };
        for span in [publish, write] {
            assert_eq!((span.of("messaging.system"), span.of("seckill.order_id")), (system, &*order));
        }
        assert_eq!(publish.of("messaging.destination.name"), destination);
        assert_eq!((write.of("seckill.outcome"), write.of("seckill.write_batch.tries")), ("written", "1"));
        assert!(write.of("seckill.write_batch.orders").parse::<u64>().unwrap() >= 1);
        assert!(spans.iter().all(|span| !span.failed), "{spans:#?}");
        assert_eq!((&*server.resource["service.name"], &*server.resource["service.version"]), ("seckill", env!("CARGO_PKG_VERSION")));
        assert!(uuid::Uuid::parse_str(&server.resource["service.instance.id"]).is_ok());

        assert!(collector.spans().iter().all(|span| span.trace == trace), "nobody else is traced");
        assert_eq!(count(app, "exported").await, 4);
        let (path, headers) = &collector.requests()[0];
        assert_eq!((&**path, &*headers["content-type"]), ("/v1/traces", "application/x-protobuf"));
        assert_eq!((&*headers["authorization"], &*headers["x-tenant"]), ("Bearer hunter2", "shop"));
    }

    async fn who_is_refused_has_a_trace_that_says_why(app) {
        let collector = Collector::start(Behaviour::Takes).await;
        let product = app.client.new_product(1).await;
        traced(app, &collector, 1.0, &[]).await;
        app.client.buy(7, product).await.is(202);
        app.client.buy(8, product).await.is_problem(409, "sold_out");
        app.client.buy(7, product).await.is_problem(409, "already_purchased");
        app.client.call(Method::POST, &format!("/seckill/{product}"), None, None).await.is_problem(401, "unauthorized");
        for outcome in ["accepted", "sold_out", "already_purchased", "unauthorized"] {
            let is_it = |span: &Span| span.kind == SERVER && span.attributes.get("seckill.outcome").is_some_and(|it| it == outcome);
            let span = collector.span(outcome, is_it).await;
            assert_eq!((&*span.name, &*span.parent, span.failed), ("POST /seckill/{id}", "", false), "a trace of its own");
        }
        // All other paths, too; a stream is over with the head of its reply.
        let stream = app.client.request(Method::GET, &format!("/events?products={product}")).send().await.unwrap();
        app.client.get("/nowhere", None).await.is_problem(404, "not_found");
        for name in ["GET /events", "GET none", "GET /readyz"] {
            collector.span(name, |span| span.name == name).await;
        }
        drop(stream);
    }

    /// Guards against: strangers who have a whole rush recorded.
    async fn a_stranger_cannot_have_a_trace_recorded(app) {
        let collector = Collector::start(Behaviour::Takes).await;
        let product = app.client.new_product(10).await;
        // Loopback is nobody who is trusted, unless it is named.
        traced(app, &collector, 0.0, &["192.0.2.1"]).await;
        for (user, trace) in [(7, trace_id()), (8, format!("{:032x}", 1))] {
            buy(app, user, product, &trace, "01").await.is(202);
        }
        app.orders_written(product, 2).await;
        // And one who is trusted says that a trace is not recorded.
        traced(app, &collector, 1.0, &["127.0.0.1"]).await;
        let trace = trace_id();
        buy(app, 9, product, &trace, "00").await.is(202);
        app.orders_written(product, 3).await;
        app.stop().await;
        let spans = collector.spans();
        assert!(!spans.is_empty() && spans.iter().all(|span| span.parent != PARENT && span.trace != trace), "{spans:#?}");
    }

    async fn what_is_no_traceparent_begins_a_trace(app) {
        let collector = Collector::start(Behaviour::Takes).await;
        let product = app.client.new_product(10).await;
        traced(app, &collector, 1.0, &["127.0.0.1"]).await;
        let trace = trace_id();
        for (user, traceparents) in [
            (7, vec![format!("00-{}-{PARENT}-01", trace.to_uppercase() + "A")]),
            (8, vec![format!("ff-{trace}-{PARENT}-01")]),
            (9, vec![format!("00-{trace}-{PARENT}-01"), format!("00-{trace}-{PARENT}-01")]),
        ] {
            let mut request = app.client.request(Method::POST, &format!("/seckill/{product}"));
            for traceparent in &traceparents {
                request = request.header("traceparent", traceparent);
            }
            app.client.send(request.bearer_auth(app.client.buyer(user))).await.is(202);
        }
        app.orders_written(product, 3).await;
        app.stop().await;
        let purchases: Vec<_> = collector.spans().into_iter().filter(|span| span.name == "POST /seckill/{id}").collect();
        assert_eq!(purchases.len(), 3);
        assert!(purchases.iter().all(|span| span.parent.is_empty() && span.trace != trace), "{purchases:#?}");
    }

    /// Nobody who buys notices, and what was not sent is counted.
    async fn a_collector_that_fails_costs_spans_only(app) {
        let collector = Collector::start(Behaviour::Answers(500)).await;
        let product = app.client.new_product(1000).await;
        for behaviour in [Some(Behaviour::Answers(500)), Some(Behaviour::Hangs), None] {
            traced(app, &collector, 1.0, &[]).await;
            match behaviour {
                Some(behaviour) => collector.behave(behaviour),
                None => {
                    // Nobody listens there.
                    app.config.traces.endpoint = "http://127.0.0.1:9".to_owned();
                    app.restart().await;
                }
            }
            let before = app.stores.number(&format!("SELECT sold AS n FROM products WHERE id = {product}")).await;
            for user in 1..=20 {
                let begun = Instant::now();
                app.client.buy(before + user, product).await.is(202);
                assert!(begun.elapsed() < Duration::from_secs(1), "{behaviour:?}: {:?}", begun.elapsed());
            }
            app.orders_written(product, before + 20).await;
            eventually_within(20, "failures are counted", || async { count(app, "failed").await > 0 }).await;
            assert_eq!(count(app, "exported").await, 0);
            let begun = Instant::now();
            app.stop().await;
            assert!(begun.elapsed() < Duration::from_secs(6), "{behaviour:?}: {:?}", begun.elapsed());
        }
    }

    async fn without_an_endpoint_nothing_is_traced(app) {
        let collector = Collector::start(Behaviour::Takes).await;
        let product = app.client.new_product(10).await;
        traced(app, &collector, 1.0, &["127.0.0.0/8"]).await;
        app.config.traces.endpoint = String::new();
        app.restart().await;
        let before = collector.connections();
        buy(app, 7, product, &trace_id(), "01").await.is(202);
        app.orders_written(product, 1).await;
        for outcome in ["exported", "dropped", "failed"] {
            assert_eq!(count(app, outcome).await, 0, "{outcome}");
        }
        app.stop().await;
        assert_eq!(collector.connections(), before);
    }
}

/// What an instance has published is read by another, and what becomes of it there belongs to the same trace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_consumes_goes_on_with_the_trace_of_who_published() {
    TestApp::run(Backend::Distributed, async |app: &mut TestApp| {
        let collector = Collector::start(Behaviour::Takes).await;
        let product = app.client.new_product(10).await;
        traced(app, &collector, 0.0, &[]).await;
        let broker = Broker::connect(&app.config.rabbitmq).await;
        let order = app.client.buy(7, product).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.orders_written(product, 1).await;
        let new = || uuid::Uuid::now_v7().to_string();
        let mut traces = Vec::new();
        for (product, order, user, outcome) in [
            (product, new(), 8, "written"),
            (product, order, 7, "already_there"),
            (product, new(), 7, "rejected"),
            (999_999, new(), 9, "put_off"),
        ] {
            let (trace, parent) = (trace_id(), trace_id()[..16].to_owned());
            let message = json!({
                "v": 1, "kind": "purchases", "product_id": product, "epoch": 1,
                "items": [{"order_id": order, "user_id": user}],
                "traceparents": {&order: format!("00-{trace}-{parent}-01")},
            });
            broker.publish(&app.config.rabbitmq.queue, message.to_string()).await;
            traces.push((trace, parent, outcome));
        }
        for (trace, parent, outcome) in traces {
            let spans = collector.trace(&trace, 1).await;
            let write = named(&spans, "write order");
            assert_eq!((&*write.parent, write.of("seckill.outcome")), (&*parent, outcome));
            assert_eq!(write.failed, outcome == "put_off");
        }
    })
    .await;
}

/// As many lines as for any other outage: one at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_is_one_line_and_its_return_another() {
    let collector = Collector::start(Behaviour::Answers(503)).await;
    let folder = Folder::new();
    let mut command = folder.embedded();
    command.env("SECKILL__TRACES__ENDPOINT", collector.url()).env("SECKILL__TRACES__SAMPLE_RATIO", "1");
    // What OpenTelemetry's own variables say of the collector counts less, and what they say of the process is added.
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9").env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
    command
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test");
    let mut server = Server::start(&folder, command).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        server.get("/healthz").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let warnings = |log: &str| log.lines().filter(|line| line.contains("does not take traces")).count();
    let log = server.log();
    assert_eq!(warnings(&log), 1, "{log}");
    assert!(log.contains("503") && log.contains("traces.endpoint"), "{log}");
    collector.behave(Behaviour::Takes);
    eventually_within(10, "spans are taken again", || async { !collector.spans().is_empty() }).await;
    assert_eq!(collector.spans()[0].resource["deployment.environment.name"], "test");
    // What is left is sent at the stop.
    server.get("/time").await.unwrap();
    server.signal("TERM");
    assert!(server.ended(Duration::from_secs(10)).success());
    let is_last = |span: &Span| span.attributes.get("http.route").is_some_and(|route| route == "/time");
    assert!(collector.spans().iter().any(is_last), "the last span was sent");
    let log = server.log();
    assert!(
        log.contains("takes traces again") && log.lines().filter(|line| line.contains(" WARN ")).count() <= 2,
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opentelemetry_s_own_variables_switch_nothing_on() {
    let collector = Collector::start(Behaviour::Takes).await;
    let folder = Folder::new();
    let mut command = folder.embedded();
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()).env("OTEL_TRACES_SAMPLER", "always_on");
    let mut server = Server::start(&folder, command).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    server.signal("TERM");
    assert!(server.ended(Duration::from_secs(10)).success());
    assert_eq!(collector.connections(), 0);
}

#[test]
fn a_mistake_about_traces_stops_the_start_with_one_line() {
    for (key, value) in [
        ("ENDPOINT", "localhost:4318"),
        ("ENDPOINT", "grpc://127.0.0.1:4317"),
        ("ENDPOINT", "http://"),
        ("ENDPOINT", "http://127.0.0.1:4318 "),
        ("ENDPOINT", "http://127.0.0.1:4318/v1/traces"),
        ("ENDPOINT", "http://127.0.0.1:4318?x=1"),
        ("ENDPOINT", "http://user:hunter2@127.0.0.1:4318"),
        ("SAMPLE_RATIO", "1.1"),
        ("SAMPLE_RATIO", "-0.1"),
        ("SAMPLE_RATIO", "NaN"),
        ("SAMPLE_RATIO", "all"),
        ("HEADERS", "hunter2"),
        ("HEADERS", "bad name=hunter2"),
        ("HEADERS", "name=hunter2%0a"),
    ] {
        let output = seckill().arg("check-config").env(format!("SECKILL__TRACES__{key}"), value).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{value}: {said}");
        assert!(said.contains(&format!("traces.{}", key.to_lowercase())), "{value}: {said}");
        assert!(!said.contains("hunter2"), "a secret in the log: {said}");
    }
}
