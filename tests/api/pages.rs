//! The pages as files: what is sent, to whom, and for how long it may be kept. What they do is tested in a browser (`tests/web`).

use reqwest::redirect::Policy;
use seckill::config::Backend;

use crate::app::TestApp;

/// Does not follow redirects, and takes no compressed replies unless asked to.
fn browser() -> reqwest::Client {
    reqwest::Client::builder().redirect(Policy::none()).build().unwrap()
}

fn header(reply: &reqwest::Response, name: &str) -> String {
    reply.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_may_lie_on_a_cdn_and_runs_nothing_of_others() {
    TestApp::run(Backend::Embedded, async |app: &mut TestApp| {
        let (http, base) = (browser(), app.client.base().to_owned());
        let door = http.get(&base).send().await.unwrap();
        assert_eq!((door.status().as_u16(), header(&door, "location").as_str()), (302, "/shop"));
        for path in ["/shop", "/shop/", "/shop/sales/7", "/shop/orders/x/y", "/console", "/console/sales/new"] {
            let page = http.get(format!("{base}{path}")).send().await.unwrap();
            assert_eq!(page.status(), 200, "{path}");
            assert_eq!(header(&page, "content-type"), "text/html; charset=utf-8");
            assert_eq!(header(&page, "cache-control"), "no-cache");
            let policy = header(&page, "content-security-policy");
            assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
            assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
            assert_eq!(header(&page, "x-content-type-options"), "nosniff");
            assert_eq!(header(&page, "referrer-policy"), "same-origin");
            let tag = header(&page, "etag");
            let known = http.get(format!("{base}{path}")).header("If-None-Match", &tag).send().await.unwrap();
            assert_eq!((known.status().as_u16(), header(&known, "etag")), (304, tag));
            let text = page.text().await.unwrap();
            // Screen readers are told of what changes in regions that were there before.
            assert!(text.contains("aria-live") || text.contains("role=\"status\""), "{path}");
            assert!(!text.contains("{{"), "{path}");
            let head = http.head(format!("{base}{path}")).send().await.unwrap();
            assert_eq!(
                (head.status().as_u16(), header(&head, "content-type").as_str()),
                (200, "text/html; charset=utf-8")
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_sent_compressed_and_nothing_else_of_the_disk_is() {
    TestApp::run(Backend::Embedded, async |app: &mut TestApp| {
        let (http, base) = (browser(), app.client.base().to_owned());
        let path = format!("{base}/assets/0123456789ab/shop/main.js");
        let plain = http.get(&path).send().await.unwrap();
        assert_eq!(
            (plain.status().as_u16(), header(&plain, "content-type").as_str()),
            (200, "text/javascript; charset=utf-8")
        );
        // Of another version, or read from the folder: not for good.
        assert_eq!(
            (header(&plain, "cache-control").as_str(), header(&plain, "vary").as_str()),
            ("no-cache", "Accept-Encoding")
        );
        let packed = http.get(&path).header("Accept-Encoding", "gzip").send().await.unwrap();
        assert_eq!(header(&packed, "content-encoding"), "gzip");
        assert_ne!(header(&packed, "etag"), header(&plain, "etag"));
        let (packed, plain) = (packed.bytes().await.unwrap().len(), plain.bytes().await.unwrap().len());
        assert!(packed < plain, "{packed} and {plain} bytes");
        for path in [
            "/assets/x/nothing.js",
            "/assets/x/",
            "/assets/x/shop.html",
            "/assets/x/..%2fCargo.toml",
            "/assets/x/%2e%2e/%2e%2e/Cargo.toml",
            "/assets/x//etc/passwd",
            "/assets/x/lib",
        ] {
            app.client.get(path, None).await.is_problem(404, "not_found");
        }
        let raw = app
            .client
            .send_raw(b"GET /assets/x/../../Cargo.toml HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await;
        assert!(raw.starts_with("HTTP/1.1 404"), "{raw}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_learns_the_time_and_the_shop_and_no_secret() {
    let named = |config: &mut seckill::config::Config| {
        config.shop.name = "Nordlicht".to_owned();
        config.shop.time_zone = "Europe/Berlin".to_owned();
    };
    TestApp::run_with(Backend::Embedded, named, async |app: &mut TestApp| {
        let settings = app.client.get("/shop/settings", None).await.is(200);
        let mut keys: Vec<&String> = settings.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(
            keys,
            ["currency", "name", "payment_window_seconds", "payments", "registration", "time_zone", "users"]
        );
        assert_eq!(
            (settings["name"].as_str(), settings["time_zone"].as_str()),
            (Some("Nordlicht"), Some("Europe/Berlin"))
        );
        let now: seckill::model::Timestamp =
            serde_json::from_value(app.client.get("/time", None).await.is(200)["now"].clone()).unwrap();
        assert!(seckill::model::Timestamp::now().since(now) < std::time::Duration::from_secs(5));
        for path in ["/admin/live", "/admin/check"] {
            app.client.get(path, None).await.is_problem(401, "unauthorized");
            app.client.get(path, Some(&app.client.buyer(7))).await.is_problem(403, "forbidden");
            app.client.get(path, Some(&app.client.admin())).await.is(200);
        }
    })
    .await;
}
