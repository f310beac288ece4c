use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use seckill::config::Backend;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::Client;
use crate::on_both_backends;
use crate::support::eventually_within;

pub const PASSWORD: &str = "correct horse";

pub fn credentials(name: &str, password: &str) -> Value {
    json!({"username": name, "password": password})
}

/// Registers a buyer; their token.
pub async fn register(client: &Client, name: &str) -> String {
    let reply = client.post("/register", None, credentials(name, PASSWORD)).await.is(201);
    reply["access_token"].as_str().unwrap().to_owned()
}

pub async fn log_in(client: &Client, name: &str, password: &str) -> String {
    let reply = client.post("/login", None, credentials(name, password)).await.is(200);
    reply["access_token"].as_str().unwrap().to_owned()
}

/// Seconds since 1970.
pub fn seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

pub fn signed(claims: &Value, secret: &str) -> String {
    signed_with_header(&serde_json::to_value(Header::new(Algorithm::HS256)).unwrap(), claims, secret)
}

fn signed_with_header(header: &Value, claims: &Value, secret: &str) -> String {
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

/// Takes back every migration from that version on.
async fn undo_migrations_since(app: &TestApp, version: &str) {
    let backend = match app.config.backend {
        Backend::Embedded => "sqlite",
        Backend::Distributed => "mysql",
    };
    let folders = std::fs::read_dir(format!("migrations/{backend}")).unwrap();
    let mut folders: Vec<_> = folders.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    for folder in folders.into_iter().rev() {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let of: String = name.split('_').next().unwrap().chars().filter(char::is_ascii_digit).collect();
        if of.as_str() >= version {
            app.stores.execute(&std::fs::read_to_string(folder.join("down.sql")).unwrap()).await;
            app.stores.execute(&format!("DELETE FROM __diesel_schema_migrations WHERE version = '{of}'")).await;
        }
    }
}

on_both_backends! {
    async fn a_registered_user_logs_in_and_is_known(app) {
        let credentials = json!({"username": "Alice", "password": "correct horse"});
        let registered = app.client.post("/register", None, credentials.clone()).await.is(201);
        assert_eq!((registered["username"].as_str(), registered["role"].as_str()), (Some("Alice"), Some("buyer")));
        let login = app.client.post("/login", None, credentials).await.is(200);
        assert_eq!((login["token_type"].as_str(), login["expires_in"].as_u64()), (Some("Bearer"), Some(86_400)));
        for token in [&login["access_token"], &registered["access_token"]] {
            let me = app.client.get("/me", token.as_str()).await.is(200);
            assert_eq!(me, json!({"id": registered["id"], "username": "Alice", "role": "buyer"}));
        }
        assert_eq!((&registered["token_type"], &registered["expires_in"]), (&login["token_type"], &login["expires_in"]));
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM users").await, 2, "alice and the administrator");
        let plain = "SELECT COUNT(*) AS n FROM users WHERE password_hash LIKE '%horse%'";
        assert_eq!(app.stores.number(plain).await, 0);
    }

    async fn names_differ_by_more_than_their_case(app) {
        let alice = |name: &str| json!({"username": name, "password": "correct horse"});
        app.client.post("/register", None, alice("Alice")).await.is(201);
        app.client.post("/register", None, alice("aLICE")).await.is_problem(409, "username_taken");
        app.client.post("/login", None, alice("ALICE")).await.is(200);
    }

    async fn two_registrations_of_one_name_at_once_make_one_account(app) {
        let alice = json!({"username": "alice", "password": "correct horse"});
        let tries = (0..8).map(|_| app.client.post("/register", None, alice.clone()));
        let mut statuses: Vec<u16> =
            futures_util::future::join_all(tries).await.into_iter().map(|reply| reply.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
    }

    async fn malformed_names_and_passwords_are_refused(app) {
        for name in ["al", "a name", "näme", &"a".repeat(33), ""] {
            let body = json!({"username": name, "password": "correct horse"});
            app.client.post("/register", None, body).await.is_invalid("username");
        }
        for password in ["short", &"x".repeat(73), &"ä".repeat(37)] {
            let body = json!({"username": "alice", "password": password});
            app.client.post("/register", None, body).await.is_invalid("password");
        }
        let longest = json!({"username": "alice", "password": "x".repeat(72)});
        app.client.post("/register", None, longest.clone()).await.is(201);
        app.client.post("/login", None, longest).await.is(200);
    }

    /// Guards against: a role accepted from the body (peers 21).
    async fn a_role_in_the_body_is_not_believed(app) {
        let body = json!({"username": "mallory", "password": "correct horse", "role": "admin"});
        app.client.post("/register", None, body).await.is_invalid("role");
    }

    async fn wrong_password_and_unknown_user_look_the_same(app) {
        let body = |name: &str, password: &str| json!({"username": name, "password": password});
        app.client.post("/register", None, body("alice", "correct horse")).await.is(201);
        for (name, password) in
            [("alice", "wrong horse"), ("bob", "correct horse"), ("a b", "correct horse"), ("alice", "x"), ("alice", "")]
        {
            app.client.post("/login", None, body(name, password)).await.is_problem(401, "invalid_credentials");
        }
    }

    async fn the_administrator_is_made_at_the_first_start(app) {
        let token = app.client.log_in_as_admin().await;
        assert_eq!(app.client.get("/me", Some(&token)).await.is(200)["role"], "admin");
        app.restart().await;
        app.client.log_in_as_admin().await;
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM users").await, 1);
    }

    /// Guards against: two owners of one number. A shop signed its tokens with our secret, for numbers of its own; one who
    /// registered here was then given such a number, and read the other's order.
    async fn a_token_that_names_no_issuer_or_another_is_not_believed(app) {
        let product = app.client.new_product(10).await;
        let now = seconds();
        for issuer in [None, Some("shop")] {
            let mut claims = json!({"sub": "2", "role": "buyer", "iat": now, "exp": now + 600});
            if let Some(issuer) = issuer {
                claims["iss"] = json!(issuer);
            }
            let token = signed(&claims, app.config.auth.jwt_secret.expose_secret());
            app.client.get("/me", Some(&token)).await.is_problem(401, "unauthorized");
            let click = app.client.call(Method::POST, &format!("/seckill/{product}"), Some(&token), None).await;
            click.is_problem(401, "unauthorized");
        }
        let alice = register(&app.client, "alice").await;
        let click = app.client.call(Method::POST, &format!("/seckill/{product}"), Some(&alice), None).await;
        assert_eq!(click.status, 202, "{click:?}");
    }

    async fn a_number_that_javascript_reads_wrongly_is_nobodys(app) {
        app.client.get("/me", Some(&app.client.buyer((1 << 53) - 1))).await.is(200);
        let now = seconds();
        let greater = (1_i64 << 53).to_string();
        let claims = json!({"iss": "seckill", "sub": greater, "role": "buyer", "iat": now, "exp": now + 600});
        let token = signed(&claims, app.config.auth.jwt_secret.expose_secret());
        app.client.get("/me", Some(&token)).await.is_problem(401, "unauthorized");
    }

    async fn a_token_of_ours_is_for_us_and_for_now(app) {
        let now = seconds();
        let good = json!({"iss": "seckill", "sub": "7", "role": "buyer", "iat": now, "exp": now + 600});
        let secret = app.config.auth.jwt_secret.expose_secret();
        app.client.get("/me", Some(&signed(&good, secret))).await.is(200);
        for (claim, value) in [
            ("aud", json!("somebody else")),
            ("nbf", json!(now + 120)),
            ("iat", json!(now + 120)),
            ("exp", json!(now)),
        ] {
            let mut claims = good.clone();
            claims[claim] = value;
            app.client.get("/me", Some(&signed(&claims, secret))).await.is_problem(401, "unauthorized");
        }
        let mut critical = serde_json::to_value(Header::new(Algorithm::HS256)).unwrap();
        critical["crit"] = json!(["b64"]);
        let token = signed_with_header(&critical, &good, secret);
        app.client.get("/me", Some(&token)).await.is_problem(401, "unauthorized");
    }

    async fn a_log_out_withdraws_every_token_there_is(app) {
        let first = register(&app.client, "alice").await;
        let second = log_in(&app.client, "alice", PASSWORD).await;
        let bob = register(&app.client, "bob").await;
        app.client.call(Method::POST, "/logout", Some(&first), None).await.is(204);
        for token in [&first, &second] {
            app.client.get("/me", Some(token)).await.is_problem(401, "unauthorized");
        }
        app.client.get("/me", Some(&bob)).await.is(200);
        // Within the same second.
        let third = log_in(&app.client, "alice", PASSWORD).await;
        app.client.get("/me", Some(&third)).await.is(200);
        app.client.call(Method::POST, "/logout", Some(&third), None).await.is(204);
        app.client.get("/me", Some(&third)).await.is_problem(401, "unauthorized");
        app.client.call(Method::POST, "/logout", None, None).await.is_problem(401, "unauthorized");
        app.restart().await;
        for token in [&first, &second, &third] {
            app.client.get("/me", Some(token)).await.is_problem(401, "unauthorized");
        }
    }

    async fn many_log_outs_with_one_token_are_one(app) {
        let token = register(&app.client, "alice").await;
        let tries = (0..8).map(|_| app.client.call(Method::POST, "/logout", Some(&token), None));
        let replies = futures_util::future::join_all(tries).await;
        assert!(replies.iter().all(|reply| matches!(reply.status, 204 | 401)), "{replies:?}");
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM token_withdrawals").await, 1);
        assert_eq!(app.stores.number("SELECT token_generation AS n FROM users WHERE username = 'alice'").await, 1);
    }

    async fn a_new_password_needs_the_current_one_and_withdraws_every_token(app) {
        let token = register(&app.client, "alice").await;
        let other = log_in(&app.client, "alice", PASSWORD).await;
        let change = |current: &str, new: &str| json!({"current": current, "new": new});
        let refused = app.client.post("/me/password", Some(&token), change("wrong horse", "another horse")).await;
        refused.is_problem(401, "invalid_credentials");
        for new in ["short", "nul\0horse", &"x".repeat(73)] {
            app.client.post("/me/password", Some(&token), change(PASSWORD, new)).await.is_invalid("new");
        }
        app.client.get("/me", Some(&token)).await.is(200);
        app.client.post("/me/password", Some(&token), change(PASSWORD, "another horse")).await.is(204);
        for token in [&token, &other] {
            app.client.get("/me", Some(token)).await.is_problem(401, "unauthorized");
        }
        let before = app.client.post("/login", None, credentials("alice", PASSWORD)).await;
        before.is_problem(401, "invalid_credentials");
        let token = log_in(&app.client, "alice", "another horse").await;
        app.client.get("/me", Some(&token)).await.is(200);
    }

    async fn an_administrator_who_is_one_no_longer_is_out_at_once(app) {
        let product = json!({"name": "Sneaker", "price_cents": 1, "stock": 1});
        for change in ["UPDATE users SET role = 'buyer' WHERE username = 'admin'", "DELETE FROM users"] {
            app.stores.execute("UPDATE users SET role = 'admin' WHERE username = 'admin'").await;
            let token = app.client.log_in_as_admin().await;
            app.client.post("/products", Some(&token), product.clone()).await.is(201);
            app.stores.execute(change).await;
            eventually_within(3, "the token is refused", async || {
                app.client.post("/products", Some(&token), product.clone()).await.status == 401
            })
            .await;
        }
    }

    /// bcrypt begins a password anew at a NUL, so `correct1` and this were the same to it.
    async fn a_password_with_a_nul_is_refused_everywhere(app) {
        register(&app.client, "alice").await;
        let doubled = format!("{PASSWORD}\0{PASSWORD}");
        app.client.post("/register", None, credentials("bob", &doubled)).await.is_invalid("password");
        app.client.post("/login", None, credentials("alice", &doubled)).await.is_problem(401, "invalid_credentials");
    }

    async fn the_administrators_name_is_never_registered(app) {
        for name in ["admin", "Admin", "ADMIN"] {
            app.client.post("/register", None, credentials(name, PASSWORD)).await.is_problem(409, "username_taken");
        }
        app.stores.execute("DELETE FROM users").await;
        app.client.post("/register", None, credentials("aDMIN", PASSWORD)).await.is_problem(409, "username_taken");
    }

    async fn numbers_that_orders_of_the_version_before_have_are_not_given_to_newcomers(app) {
        // The schema of the version before, with an order of a number that the shop gave.
        app.stop().await;
        undo_migrations_since(app, "20261128101300").await;
        let order = "INSERT INTO orders (id, product_id, user_id, live_user, status, price_cents, created_at, updated_at) \
            VALUES (X'019a0000000070008000000000000000', 1, 4711, 4711, 'unpaid', 1, '2026-11-27 00:00:00.000', '2026-11-27 00:00:00.000')";
        app.stores.execute(order).await;
        app.restart().await;
        let newcomer = app.client.post("/register", None, credentials("alice", PASSWORD)).await.is(201);
        assert!(newcomer["id"].as_i64().unwrap() > 4711, "{newcomer}");
    }

    async fn log_ins_are_counted_by_what_they_came_to(app) {
        let counted = |text: &str, outcome: &str, count: u64| {
            let line = format!("seckill_log_ins_total{{outcome=\"{outcome}\"}} {count}");
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        };
        let metrics = async || app.client.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let before = metrics().await;
        for outcome in ["success", "invalid_credentials", "rate_limited", "unavailable"] {
            counted(&before, outcome, 0);
        }
        register(&app.client, "alice").await;
        log_in(&app.client, "alice", PASSWORD).await;
        app.client.post("/login", None, credentials("alice", "wrong horse")).await.is_problem(401, "invalid_credentials");
        let after = metrics().await;
        counted(&after, "success", 1);
        counted(&after, "invalid_credentials", 1);
    }

    /// Guards against: a user id on anybody's word (peers 21).
    async fn a_token_that_is_not_ours_is_refused(app) {
        let good = app.client.buyer(7);
        let (head, signature) = good.rsplit_once('.').unwrap();
        let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
        for token in [None, Some(""), Some("nonsense"), Some(forged.as_str()), Some(head)] {
            app.client.get("/me", token).await.is_problem(401, "unauthorized");
        }
        let basic = app.client.request(reqwest::Method::GET, "/me").header("Authorization", format!("Basic {good}"));
        app.client.send(basic).await.is_problem(401, "unauthorized");
    }
}

/// Counted in the process, so the backend makes no difference.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_and_failed_log_ins_are_limited() {
    let limited = |config: &mut seckill::config::Config| config.limits.auth_per_minute = 3;
    TestApp::run_with(seckill::config::Backend::Embedded, limited, async |app: &mut TestApp| {
        let body = |name: &str, password: &str| json!({"username": name, "password": password});
        for name in ["alice", "bob", "carol"] {
            app.client.post("/register", None, body(name, "correct horse")).await.is(201);
        }
        let refused = app.client.post("/register", None, body("dave", "correct horse")).await;
        refused.is_problem(429, "rate_limited");
        let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        for _ in 0..3 {
            app.client.post("/login", None, body("alice", "wrong horse")).await.is_problem(401, "invalid_credentials");
        }
        app.client.post("/login", None, body("alice", "correct horse")).await.is_problem(429, "rate_limited");
    })
    .await;
}
