//! What holds for every path: request ids, problems, limits.

use reqwest::Method;
use serde_json::json;

use crate::on_both_backends;

on_both_backends! {
    async fn every_reply_carries_a_request_id(app) {
        let made = app.client.get("/healthz", None).await;
        assert_eq!(made.headers["x-request-id"].len(), 36);
        for (sent, kept) in [("abc-DEF_1.2", true), ("white space", false), (&*"x".repeat(129), false)] {
            let request = app.client.request(Method::GET, "/nowhere").header("X-Request-Id", sent);
            let reply = app.client.send(request).await;
            assert_eq!(reply.headers["x-request-id"] == sent, kept, "{sent}");
        }
    }

    async fn what_the_framework_refuses_is_a_problem_too(app) {
        let client = &app.client;
        client.get("/nowhere", None).await.is_problem(404, "not_found");
        let refused = client.call(Method::DELETE, "/products", None, None).await;
        refused.is_problem(405, "method_not_allowed");
        assert_eq!(refused.headers["allow"], "GET, HEAD, POST, OPTIONS");
        let refused = client.call(Method::GET, "/seckill/1", None, None).await;
        refused.is_problem(405, "method_not_allowed");
        assert_eq!(refused.headers["allow"], "POST, OPTIONS");
        for nothing in ["/seckill", "/seckill/", "/seckill/1/", "/seckill/1/2", "/seckills/1"] {
            client.call(Method::POST, nothing, None, None).await.is_problem(404, "not_found");
        }

        let post = |body: &str| client.request(Method::POST, "/login").body(body.to_owned());
        let json = |body: &str| post(body).header("Content-Type", "application/json");
        client.send(post("{}")).await.is_problem(415, "unsupported_media_type");
        let form = post("username=a").header("Content-Type", "application/x-www-form-urlencoded");
        client.send(form).await.is_problem(415, "unsupported_media_type");
        for broken in ["", "{", "[]", "null", "\"x\"", "{\"username\":\"alice\"", "\u{0}"] {
            client.send(json(broken)).await.is_problem(400, "invalid_request");
        }
        client.send(json("{\"username\":\"alice\"}")).await.is_invalid("password");
        client.send(json("{\"username\":5,\"password\":\"correct horse\"}")).await.is_invalid("username");
        client.send(json("{\"username\":\"a\",\"password\":\"b\"} {}")).await.is_problem(400, "invalid_request");
        client.send(json("{\"username\":\"a\",\"password\":\"b\",\"x\":1}")).await.is_invalid("x");
        let with_charset = post("{\"username\":\"nobody\",\"password\":\"correct horse\"}")
            .header("Content-Type", "application/json; charset=utf-8");
        client.send(with_charset).await.is_problem(401, "invalid_credentials");
    }

    async fn a_body_over_64_kib_is_refused(app) {
        let large = json!({"username": "alice", "password": "x".repeat(70_000)});
        app.client.post("/register", None, large.clone()).await.is_problem(413, "payload_too_large");
        let id = app.client.new_product(1).await;
        let path = format!("/seckill/{id}");
        let buyer = app.client.buyer(7);
        app.client.call(Method::POST, &path, Some(&buyer), Some(large)).await.is_problem(413, "payload_too_large");
        let small = json!({"quantity": 1});
        app.client.call(Method::POST, &path, Some(&buyer), Some(small)).await.is(202);
    }

    async fn health_is_told(app) {
        app.client.get("/healthz", None).await.is(200);
        let ready = app.client.get("/readyz", None).await.is(200);
        assert_eq!(ready, json!({"status": "ready", "checks": {"database": "up", "gate": "up", "queue": "up"}}));
    }

    /// Whoever sends too slowly is cut off, and holds nothing meanwhile.
    async fn a_request_that_never_ends_is_cut(app) {
        let head = "POST /login HTTP/1.1\r\nHost: seckill\r\nContent-Type: application/json\r\n";
        let slow_head = app.client.send_raw(head.as_bytes());
        let slow_body = format!("{head}Content-Length: 50\r\n\r\n{{\"username\":");
        let slow_body = app.client.send_raw(slow_body.as_bytes());
        let (slow_head, slow_body) = tokio::join!(slow_head, slow_body);
        assert!(slow_head.is_empty() || slow_head.starts_with("HTTP/1.1 408"), "{slow_head}");
        assert!(slow_body.starts_with("HTTP/1.1 400") && slow_body.contains("in time"), "{slow_body}");
    }

    async fn a_body_that_is_too_large_is_refused_before_it_is_read(app) {
        let head = "POST /login HTTP/1.1\r\nHost: seckill\r\nContent-Type: application/json\r\n";
        let request = format!("{head}Content-Length: 70000\r\n\r\n");
        let reply = app.client.send_raw(request.as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 413") && reply.contains("payload_too_large"), "{reply}");
    }
}
