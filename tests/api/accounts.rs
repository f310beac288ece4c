use serde_json::json;

use crate::app::TestApp;
use crate::on_both_backends;

on_both_backends! {
    async fn a_registered_user_logs_in_and_is_known(app) {
        let credentials = json!({"username": "Alice", "password": "correct horse"});
        let registered = app.client.post("/register", None, credentials.clone()).await.is(201);
        assert_eq!((registered["username"].as_str(), registered["role"].as_str()), (Some("Alice"), Some("buyer")));
        let login = app.client.post("/login", None, credentials).await.is(200);
        assert_eq!((login["token_type"].as_str(), login["expires_in"].as_u64()), (Some("Bearer"), Some(86_400)));
        let me = app.client.get("/me", login["access_token"].as_str()).await.is(200);
        assert_eq!(me, registered);
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

    async fn a_token_of_the_shops_own_directory_is_believed(app) {
        let me = app.client.get("/me", Some(&app.client.buyer(4_000_000_000))).await.is(200);
        assert_eq!(me, json!({"id": 4_000_000_000_i64, "username": null, "role": "buyer"}));
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
