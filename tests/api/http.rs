//! HTTP itself: methods, headers, forms of requests, and what a client is told of a bad one.

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::app::TestApp;
use crate::on_both_backends;

const ALLOWED: &str = "https://shop.example";

/// A request as it is on the wire, with the end of its connection.
async fn raw(app: &TestApp, request: &str) -> String {
    app.client.send_raw(request.replace('\n', "\r\n").as_bytes()).await
}

async fn head(app: &TestApp, path: &str, token: Option<&str>) -> (u16, HeaderMap, usize) {
    let mut request = app.client.request(Method::HEAD, path);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let reply = request.send().await.unwrap();
    let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
    (status, headers, reply.bytes().await.unwrap().len())
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    let mut encoder = flate2::write::GzEncoder::new(&mut compressed, flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, text).unwrap();
    encoder.finish().unwrap();
    compressed
}

on_both_backends! {
    async fn head_is_get_without_its_body(app) {
        let id = app.client.new_product(1).await;
        let buyer = app.client.buyer(7);
        let product = format!("/products/{id}");
        for (path, token) in [
            ("/products", None), (product.as_str(), None), ("/products/999", None), ("/orders", Some(&*buyer)),
            ("/me", None), ("/me", Some(&buyer)), ("/healthz", None), ("/readyz", None), ("/nowhere", None),
        ] {
            let get = app.client.get(path, token).await;
            let (status, headers, length) = head(app, path, token).await;
            assert_eq!((status, length), (get.status, 0), "{path}");
            for name in ["content-length", "content-type", "cache-control", "etag"] {
                assert_eq!(headers.get(name), get.headers.get(name), "{name} of {path}");
            }
        }
        assert_eq!(head(app, "/metrics", None).await.0, 200);
        assert_eq!(head(app, "/login", None).await.0, 405);
    }

    async fn options_says_what_a_path_answers(app) {
        for (path, allowed) in [
            ("/products", "GET, HEAD, POST, OPTIONS"), ("/products/1", "GET, HEAD, PATCH, OPTIONS"),
            ("/seckill/1", "POST, OPTIONS"), ("/login", "POST, OPTIONS"), ("/healthz", "GET, HEAD, OPTIONS"),
        ] {
            let reply = app.client.call(Method::OPTIONS, path, None, None).await;
            assert_eq!((reply.status, &reply.headers["allow"]), (204, &allowed.parse().unwrap()), "{path}");
            assert!(!reply.headers.contains_key("access-control-allow-origin") && !reply.headers.contains_key("vary"));
            let refused = app.client.call(Method::PUT, path, None, None).await;
            refused.is_problem(405, "method_not_allowed");
            assert_eq!(refused.headers["allow"], allowed);
        }
        app.client.call(Method::OPTIONS, "/nowhere", None, None).await.is_problem(404, "not_found");
        let slash = app.client.get("/products/", None).await;
        slash.is_problem(404, "not_found");
        assert!(slash.body["detail"].as_str().unwrap().contains("slash"));
    }

    async fn what_depends_on_who_asks_is_not_stored(app) {
        let id = app.client.new_product(1).await;
        let buyer = app.client.buyer(7);
        let order = app.client.buy(7, id).await;
        assert_eq!(order.headers["cache-control"], "no-store");
        for (path, token, stored) in [
            ("/orders", Some(&*buyer), "no-store"), ("/me", Some(&buyer), "no-store"), ("/me", None, "no-store"),
            ("/products/999", None, "no-store"), ("/nowhere", None, "no-store"), ("/readyz", None, "no-store"),
            ("/products?limit=x", None, "no-store"), ("/products", None, "no-cache"),
            (&format!("/products/{id}"), None, "no-cache"),
        ] {
            assert_eq!(app.client.get(path, token).await.headers["cache-control"], stored, "{path}");
        }
        let refused = app.client.buy(8, id).await;
        refused.is_problem(409, "sold_out");
        assert_eq!(refused.headers["cache-control"], "no-store");
    }

    async fn texts_show_what_they_hold(app) {
        let admin = app.client.admin();
        let good = json!({"name": "Sneaker", "price_cents": 1, "stock": 1});
        for (field, value) in [
            ("name", "a\u{0}b"), ("name", "a\nb"), ("name", "\u{202e}abc"), ("name", "\u{200b}\u{2060}"),
            ("name", "\u{3164}"), ("description", "a\u{7}"), ("description", "a\u{2067}b"), ("description", "\u{feff}"),
        ] {
            let mut body = good.clone();
            body[field] = value.into();
            app.client.post("/products", Some(&admin), body).await.is_invalid(field);
        }
        let id = app.client.new_product(1).await;
        app.client.patch(&format!("/products/{id}"), Some(&admin), json!({"name": "a\tb"})).await.is_invalid("name");
        let mut emoji = good;
        emoji["name"] = "👟 Größe 42 · 日本語".into();
        app.client.post("/products", Some(&admin), emoji).await.is(201);
    }

    async fn ids_and_cursors_have_one_spelling_and_fit_a_browser(app) {
        let id = app.client.new_product(1).await;
        for bad in ["0", "-1", "9007199254740992", "9223372036854775807", "18446744073709551615", "01", "+1", "1.0"] {
            app.client.get(&format!("/products/{bad}"), None).await.is_invalid("9007199254740991");
            app.client.buy_at(7, bad).await.is_invalid("id");
            app.client.get(&format!("/products?cursor={bad}"), None).await.is_invalid("cursor");
            app.client.get(&format!("/admin/log?cursor={bad}"), Some(&app.client.admin())).await.is_invalid("cursor");
        }
        app.client.get("/products/9007199254740991", None).await.is_problem(404, "product_not_found");
        let digits: String = id.to_string().bytes().map(|digit| format!("%{digit:02x}")).collect();
        app.client.get(&format!("/products/{digits}"), None).await.is(200);
        app.client.buy_at(7, &digits).await.is(202);
        let loud = "01A222DE-76B9-7552-ACAB-B84D04B4E19A";
        let buyer = app.client.buyer(7);
        app.client.get(&format!("/orders/{loud}"), Some(&buyer)).await.is_invalid("id");
        app.client.get(&format!("/orders?cursor={loud}"), Some(&buyer)).await.is_invalid("cursor");
        for bad in [loud, "01a222de76b97552acabb84d04b4e19a", "{01a222de-76b9-7552-acab-b84d04b4e19a}"] {
            app.client.get(&format!("/admin/orders?cursor={bad}"), Some(&app.client.admin())).await.is_invalid("cursor");
        }
    }

    async fn a_query_may_hold_more_but_nothing_twice(app) {
        app.client.get("/products?utm_source=mail&utm_source=ad&limit=1", None).await.is(200);
        app.client.get("/orders?fbclid=x", Some(&app.client.buyer(7))).await.is(200);
        for (query, detail) in [
            ("limit=1&limit=2", "limit: is given more than once"), ("limit=x", "limit: must be a whole number"),
            ("limit=", "limit: must be a whole number"), ("limit=99999999999999999999", "limit: is out of range"),
            ("limit=0", "limit: must be 1 to 100"), ("state=sold", "state: must be upcoming, live or ended, not `sold`"),
            ("cursor=x", "cursor: must be the next_cursor of an earlier page"),
        ] {
            let refused = app.client.get(&format!("/products?{query}"), None).await;
            refused.is_problem(400, "invalid_request");
            assert_eq!(refused.body["detail"], detail, "{query}");
        }
    }

    async fn what_is_wrong_with_a_body_is_said_in_words_of_people(app) {
        let admin = app.client.admin();
        let send = async |body: &str| {
            let request = app.client.request(Method::POST, "/products").bearer_auth(&admin);
            app.client.send(request.header("Content-Type", "application/json").body(body.to_owned())).await
        };
        let with = |field: &str, value: Value| {
            let mut body = json!({"name": "Sneaker", "price_cents": 1, "stock": 1});
            body[field] = value;
            body.to_string()
        };
        for (body, detail) in [
            (with("price_cents", json!("1")), "price_cents: must be a whole number"),
            (with("price_cents", json!(1.5)), "price_cents: must be a whole number"),
            (with("price_cents", json!(-1)), "price_cents: must be 0 to 1000000000000"),
            (with("stock", json!(10_000_001)), "stock: must be 0 to 10000000"),
            (with("name", json!("\u{200b}")), "name: must be 1 to 200 characters, and not all invisible"),
            (with("description", json!("a\nb")), "description: must not hold control characters"),
            (with("stock", json!(9_223_372_036_854_775_808_u64)), "stock: is out of range"),
            (with("stock", json!(null)), "stock: must be a whole number"),
            (with("name", json!(["a"])), "name: must be text"),
            (with("starts_at", json!("tomorrow")), "starts_at: must be an RFC 3339 time such as 2026-11-27T09:00:00Z"),
            (with("starts_at", json!("1969-12-31T23:59:59Z")), "starts_at: must be a time in the years 1970 to 9999"),
            (with("starts_at", json!(5)), "starts_at: must be text"),
            (with("prize", json!(1)), "prize: is not known here; known are name, description, price_cents, stock, starts_at, ends_at, currency, payment_window_seconds, max_per_order, max_per_address, image_url or draft"),
            ("{\"name\":\"a\"}".to_owned(), "price_cents: is missing"),
            ("{\"name\":\"a\",\"name\":\"b\"}".to_owned(), "name: is given more than once"),
            ("[\"a\",\"\",1,1]".to_owned(), "body: must be a JSON object"),
            ("null".to_owned(), "body: must be a JSON object"),
            ("\"a\"".to_owned(), "body: must be a JSON object"),
            (String::new(), "body: is empty; it must be a JSON object"),
            (" \n".to_owned(), "body: is empty; it must be a JSON object"),
            ("{\"name\":".to_owned(), "body: is not complete JSON"),
            ("{'name':1}".to_owned(), "body: is not JSON: line 1, column 2"),
            ("{} {}".to_owned(), "name: is missing"),
            ("\u{feff}{}".to_owned(), "body: must not begin with a byte order mark"),
        ] {
            let refused = send(&body).await;
            refused.is_problem(400, "invalid_request");
            assert_eq!(refused.body["detail"], detail, "{body}");
        }
        let id = app.client.new_product(1).await;
        let patch = format!("/products/{id}");
        app.client.patch(&patch, Some(&admin), json!(["renamed"])).await.is_invalid("object");
        app.client.post("/login", None, json!(["admin", "correct horse"])).await.is_invalid("object");
        assert_eq!(app.client.product(id).await["name"], "Sneaker");
    }

    async fn bodies_may_be_gzip_and_nothing_larger_comes_out_of_it(app) {
        let login = async |coding: &str, body: Vec<u8>| {
            let request = app.client.request(Method::POST, "/login").header("Content-Type", "application/json");
            app.client.send(request.header("Content-Encoding", coding).body(body)).await
        };
        let credentials = json!({"username": "nobody", "password": "correct horse"}).to_string();
        login("gzip", gzip(credentials.as_bytes())).await.is_problem(401, "invalid_credentials");
        login("identity", credentials.clone().into_bytes()).await.is_problem(401, "invalid_credentials");
        login("gzip", gzip(&vec![b' '; 50_000_000])).await.is_problem(413, "payload_too_large");
        login("gzip", credentials.clone().into_bytes()).await.is_invalid("gzip");
        let refused = login("br", credentials.into_bytes()).await;
        refused.is_problem(415, "unsupported_media_type");
        assert_eq!(refused.headers["accept-encoding"], "gzip");
    }

    async fn large_pages_are_compressed_for_those_who_ask(app) {
        for _ in 0..20 {
            app.client.new_product(1).await;
        }
        let get = async |coding: &str| app.client.request(Method::GET, "/products").header("Accept-Encoding", coding).send().await.unwrap();
        let (plain, small) = (get("identity").await, get("br, gzip").await);
        assert!(!plain.headers().contains_key("content-encoding"));
        assert_eq!((&small.headers()["content-encoding"], &small.headers()["vary"]), (&"gzip".parse().unwrap(), &"Accept-Encoding".parse().unwrap()));
        assert_ne!(plain.headers()["etag"], small.headers()["etag"]);
        let (plain, small) = (plain.bytes().await.unwrap(), small.bytes().await.unwrap());
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&small[..]), &mut read).unwrap();
        assert!(small.len() * 3 < plain.len() && read == plain, "{} of {}", small.len(), plain.len());
        assert!(!get("gzip;q=0").await.headers().contains_key("content-encoding"));
    }

    async fn a_condition_that_is_not_kept_is_refused(app) {
        let id = app.client.new_product(1).await;
        let (product, hook) = (format!("/products/{id}"), "/admin/webhooks/1");
        let change = async |method: Method, path: &str, name: &str, value: &str| {
            let request = app.client.request(method, path).bearer_auth(app.client.admin()).header(name, value);
            app.client.send(request.json(&json!({"description": "changed"}))).await.is_invalid(&name.to_lowercase());
        };
        for tag in ["\"abc\"", "1", "W/\"1\"", "\"1\", W/\"2\"", "", "\"*\"", "\"1.0\""] {
            change(Method::PATCH, &product, "If-Match", tag).await;
        }
        change(Method::PATCH, &product, "If-Unmodified-Since", "Sat, 29 Oct 2033 19:43:31 GMT").await;
        for method in [Method::PATCH, Method::DELETE] {
            change(method, hook, "If-Match", "*").await;
        }
        assert_eq!(app.client.product(id).await["description"], "");
    }

    async fn odd_requests_are_understood_or_refused(app) {
        let absolute = raw(app, "GET http://elsewhere/healthz?x HTTP/1.1\nHost: x\nConnection: close\n\n").await;
        assert!(absolute.starts_with("HTTP/1.1 200"), "{absolute}");
        let expects = "POST /login HTTP/1.1\nHost: x\nConnection: close\nExpect: 100-continue\nContent-Type: application/json\nContent-Length: 2\n\n{}";
        let expects = raw(app, expects).await;
        assert!(expects.starts_with("HTTP/1.1 100") && expects.contains("HTTP/1.1 400"), "{expects}");
        let twice = "POST /login HTTP/1.1\nHost: x\nConnection: close\nContent-Type: application/json\nContent-Type: text/plain\nContent-Length: 2\n\n{}";
        assert!(raw(app, twice).await.contains("Content-Type: is given more than once"));
        for content_type in ["application/json; charset=latin1", "application/jsonx", "text/json"] {
            let post = app.client.request(Method::POST, "/login").header("Content-Type", content_type).body("{}");
            app.client.send(post).await.is_problem(415, "unsupported_media_type");
        }
        let mut gone = app.client.connect().await;
        gone.write_all(b"GET /products HTTP/1.1\r\nHost").await.unwrap();
        drop(gone);
        app.client.get("/healthz", None).await.is(200);
    }
}

/// Guards against: the last packet of a reply that waits until those before are acknowledged, which takes 40 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_reply_comes_at_once() {
    TestApp::run(seckill::config::Backend::Embedded, async |app| {
        let mut took = Vec::new();
        for _ in 0..15 {
            let begun = std::time::Instant::now();
            let reply = app.client.request(Method::GET, "/openapi.json").send().await.unwrap();
            assert!(reply.bytes().await.unwrap().len() > 100_000, "more than a packet of this machine's own network");
            took.push(begun.elapsed());
        }
        took.sort_unstable();
        assert!(took[7].as_millis() < 35, "{took:?}");
    })
    .await;
}

/// Pages of the shop's own origin may read everything, errors too; no other origin is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listed_origins_may_read_replies() {
    let listed = |config: &mut seckill::config::Config| config.server.cors_origins = vec![ALLOWED.to_owned()];
    TestApp::run_with(seckill::config::Backend::Embedded, listed, async |app| {
        let id = app.client.new_product(1).await;
        for (method, path) in [
            (Method::GET, format!("/products/{id}")),
            (Method::GET, "/nowhere".to_owned()),
            (Method::GET, "/me".to_owned()),
            (Method::POST, "/login".to_owned()),
            (Method::POST, format!("/seckill/{id}")),
            (Method::PUT, "/me".to_owned()),
        ] {
            for (origin, allowed) in
                [(Some(ALLOWED), true), (Some("https://evil.example"), false), (Some("null"), false), (None, false)]
            {
                let mut request = app.client.request(method.clone(), &path);
                if let Some(origin) = origin {
                    request = request.header("Origin", origin);
                }
                let reply = app.client.send(request).await;
                let named = reply.headers.get("access-control-allow-origin").map(|origin| origin.to_str().unwrap());
                assert_eq!(named, allowed.then_some(ALLOWED), "{method} {path} {origin:?}");
                let vary: Vec<_> = reply.headers.get_all("vary").iter().map(|vary| vary.to_str().unwrap()).collect();
                assert!(vary.contains(&"Origin"), "{method} {path}: {vary:?}");
                if allowed {
                    assert_eq!(
                        reply.headers["access-control-expose-headers"],
                        "Location, Retry-After, RateLimit, X-Request-Id, ETag"
                    );
                }
            }
        }
        let preflight = app.client.request(Method::OPTIONS, "/products").header("Origin", ALLOWED);
        let reply = app.client.send(preflight.header("Access-Control-Request-Method", "POST")).await;
        assert_eq!(reply.status, 204);
        assert_eq!(reply.headers["access-control-allow-methods"], "GET, HEAD, POST, OPTIONS");
        assert!(reply.headers["access-control-allow-headers"].to_str().unwrap().contains("Authorization"));
    })
    .await;
}
