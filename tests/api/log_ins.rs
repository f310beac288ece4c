//! Who may try to log in how often, and who waits for whom.

use std::time::{Duration, Instant};

use reqwest::Method;
use seckill::config::Config;
use seckill::model::TrustedProxies;
use serde_json::Value;

use crate::accounts::{PASSWORD, credentials, register};
use crate::app::TestApp;
use crate::client::{Client, Reply};

/// A proxy on this machine says where a request comes from.
fn behind_a_proxy(config: &mut Config) {
    config.server.trusted_proxies = TrustedProxies::parse(["127.0.0.0/8"]).unwrap();
    config.limits.auth_per_minute = 30;
}

async fn post_from(client: &Client, address: &str, path: &str, body: &Value) -> Reply {
    client.send(client.request(Method::POST, path).header("X-Forwarded-For", address).json(body)).await
}

async fn log_in_from(client: &Client, address: &str, name: &str, password: &str) -> Reply {
    post_from(client, address, "/login", &credentials(name, password)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_locks_the_administrator_out_from_elsewhere() {
    TestApp::on_both(behind_a_proxy, async |app: &mut TestApp| {
        for number in 0..35 {
            let reply = log_in_from(&app.client, "203.0.113.9:4711", "admin", "wrong horse").await;
            assert_eq!(reply.status, if number < 30 { 401 } else { 429 }, "{number}: {reply:?}");
        }
        let password = secrecy::ExposeSecret::expose_secret(&app.config.admin.password).to_owned();
        let owner = log_in_from(&app.client, "198.51.100.7", "admin", &password).await;
        assert_eq!(owner.status, 200, "{owner:?}");
        let guesser = log_in_from(&app.client, "203.0.113.9", "admin", &password).await;
        guesser.is_problem(429, "rate_limited");
        let wait: u64 = guesser.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_addresses_that_guess_together_have_a_few_tries_each_and_the_owner_has_them_too() {
    TestApp::on_both(behind_a_proxy, async |app: &mut TestApp| {
        register(&app.client, "alice").await;
        for host in 1..=10 {
            for _ in 0..3 {
                let reply = log_in_from(&app.client, &format!("203.0.113.{host}"), "alice", "wrong horse").await;
                assert_eq!(reply.status, 401);
            }
        }
        let fourth = log_in_from(&app.client, "203.0.113.1", "alice", PASSWORD).await;
        fourth.is_problem(429, "rate_limited");
        assert_eq!(log_in_from(&app.client, "198.51.100.7", "alice", "wrong horse").await.status, 401);
        assert_eq!(log_in_from(&app.client, "198.51.100.7", "alice", PASSWORD).await.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_what_the_proxy_says_and_a_v6_line_is_one() {
    let few = |config: &mut Config| {
        behind_a_proxy(config);
        config.limits.auth_per_minute = 3;
    };
    TestApp::on_both(few, async |app: &mut TestApp| {
        for (tries, another_line) in [
            (["2001:db8:0:1::1", "[2001:db8:0:1:ffff::2]:80", "2001:db8:0:1::3", "2001:db8:0:1::4"], "2001:db8:0:2::1"),
            (["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1:4711", "6.6.6.6, 192.0.2.1, 127.0.0.2"], "192.0.2.2"),
        ] {
            for (number, address) in tries.iter().enumerate() {
                let reply = log_in_from(&app.client, address, "nobody", "wrong horse").await;
                assert_eq!(reply.status, if number < 3 { 401 } else { 429 }, "{address}: {reply:?}");
            }
            assert_eq!(log_in_from(&app.client, another_line, "another", "wrong horse").await.status, 401);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_ins_that_succeed_are_limited_too() {
    let few = |config: &mut Config| {
        behind_a_proxy(config);
        config.limits.auth_per_minute = 3;
    };
    TestApp::on_both(few, async |app: &mut TestApp| {
        register(&app.client, "alice").await;
        for _ in 0..3 {
            assert_eq!(log_in_from(&app.client, "192.0.2.1", "alice", PASSWORD).await.status, 200);
        }
        log_in_from(&app.client, "192.0.2.1", "alice", PASSWORD).await.is_problem(429, "rate_limited");
        assert_eq!(log_in_from(&app.client, "192.0.2.2", "alice", PASSWORD).await.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_account_that_logs_in_rightly_all_the_time_keeps_nobody_else_waiting() {
    let unlimited = |config: &mut Config| {
        behind_a_proxy(config);
        config.limits.auth_per_minute = 0;
        config.auth.bcrypt_cost = 6;
    };
    TestApp::on_both(unlimited, async |app: &mut TestApp| {
        register(&app.client, "alice").await;
        let client = &app.client;
        let greedy = async {
            loop {
                let tries = (0..40).map(|_| log_in_from(client, "192.0.2.1", "alice", PASSWORD));
                futures_util::future::join_all(tries).await;
            }
        };
        let others = async {
            let newcomers = (0..25).map(async |number: u32| {
                let address = format!("198.51.100.{number}");
                let name = format!("newcomer{number}");
                let registered = post_from(client, &address, "/register", &credentials(&name, PASSWORD)).await;
                assert_eq!(registered.status, 201, "{registered:?}");
                let logged_in = log_in_from(client, &address, &name, PASSWORD).await;
                assert_eq!(logged_in.status, 200, "{logged_in:?}");
            });
            futures_util::future::join_all(newcomers).await;
        };
        tokio::select! {
            () = greedy => unreachable!("it never ends"),
            () = others => {}
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomers_who_come_again_when_they_are_told_to_are_all_registered() {
    let unlimited = |config: &mut Config| {
        behind_a_proxy(config);
        config.limits.auth_per_minute = 0;
        config.auth.bcrypt_cost = 5;
    };
    TestApp::on_both(unlimited, async |app: &mut TestApp| {
        let client = &app.client;
        let begun = Instant::now();
        // More from one address than may be held open at once.
        let newcomers = (0..300).map(async |number: u32| {
            let body = credentials(&format!("newcomer{number}"), PASSWORD);
            for tries in 1.. {
                let reply = post_from(client, "192.0.2.1", "/register", &body).await;
                // 503: a database that is slower than it should be, with a crowd of others.
                if [429, 503].contains(&reply.status) {
                    let wait: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
                    tokio::time::sleep(Duration::from_secs(wait)).await;
                    continue;
                }
                let token = reply.is(201)["access_token"].as_str().unwrap().to_owned();
                client.get("/me", Some(&token)).await.is(200);
                return tries;
            }
            0
        });
        let tries: Vec<u64> = futures_util::future::join_all(newcomers).await;
        let took = begun.elapsed();
        // On a machine with much else to do, each hash takes long.
        let enough = 5 + took.as_secs() / 10;
        assert!(tries.iter().all(|tries| *tries <= enough), "{tries:?} within {took:?}");
    })
    .await;
}
