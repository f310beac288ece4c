//! `auth.users: external`: buyers of the shop's own directory.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use seckill::app::RunningApp;
use seckill::config::{Backend, Config, Registration, Users};
use seckill::model::Role;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::accounts::{PASSWORD, credentials, log_in, seconds, signed};
use crate::app::TestApp;
use crate::client::{Client, Reply};
use crate::support::{eventually, eventually_within};

const SECRET: &str = "the shop's own, and nobody else's secret";
const ISSUER: &str = "https://shop.example";

fn with_secret(config: &mut Config) {
    config.auth.users = Users::External;
    config.auth.external.issuer = ISSUER.to_owned();
    config.auth.external.secret = SECRET.into();
}

fn claims(subject: &str) -> Value {
    json!({"iss": ISSUER, "sub": subject, "role": "buyer", "iat": seconds(), "exp": seconds() + 600})
}

fn token(subject: &str) -> String {
    signed(&claims(subject), SECRET)
}

async fn me(client: &Client, token: &str) -> Reply {
    client.get("/me", Some(token)).await
}

async fn buy(client: &Client, token: &str, product: i64) -> Reply {
    client.call(Method::POST, &format!("/seckill/{product}"), Some(token), None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_subjects_never_share_an_order_whatever_numbers_they_look_like() {
    TestApp::on_both(with_secret, async |app: &mut TestApp| {
        let admin = app.client.log_in_as_admin().await;
        let product = json!({"name": "Sneaker", "price_cents": 1, "stock": 100});
        let product = app.client.post("/products", Some(&admin), product).await.is(201)["id"].as_i64().unwrap();
        // The administrator is user 1 here.
        let longest = "x".repeat(255);
        let subjects =
            ["1", "01", "4", "4 ", " 4", "four", "Four", "vier\u{e4}", "viera\u{308}", "4\0", "user|4", &longest];
        let mut ids = Vec::new();
        for subject in subjects {
            let id = me(&app.client, &token(subject)).await.is(200)["id"].as_i64().unwrap();
            assert!((1 << 52..1 << 53).contains(&id), "{subject}: {id}");
            ids.push(id);
            let order = buy(&app.client, &token(subject), product).await.is(202);
            let mine = app.client.get("/orders", Some(&token(subject))).await.is(200);
            assert_eq!(mine["items"].as_array().unwrap().len(), 1, "{subject}");
            assert_eq!(mine["items"][0]["id"], order["order_id"], "{subject}");
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), subjects.len());
        assert_eq!(me(&app.client, &admin).await.is(200)["id"], 1);
        app.orders_written(product, subjects.len() as i64).await;
        // Who they are outlives a restart, and the directory's name is a part of it.
        let before = me(&app.client, &token("4")).await.is(200);
        app.restart().await;
        assert_eq!(me(&app.client, &token("4")).await.is(200), before);
        app.config.auth.external.issuer = "https://another.example".to_owned();
        app.restart().await;
        let mut elsewhere = claims("4");
        elsewhere["iss"] = json!("https://another.example");
        assert_ne!(me(&app.client, &signed(&elsewhere, SECRET)).await.is(200)["id"], before["id"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_for_the_first_time_gets_a_number_each() {
    TestApp::on_both(with_secret, async |app: &mut TestApp| {
        let tokens: Vec<String> = (0..400).map(|number| token(&format!("buyer-{}", number / 2))).collect();
        let clicks = tokens.iter().map(|token| me(&app.client, token));
        let replies = futures_util::future::join_all(clicks).await;
        let ids: Vec<i64> = replies.into_iter().map(|reply| reply.is(200)["id"].as_i64().unwrap()).collect();
        assert!(ids.chunks(2).all(|pair| pair[0] == pair[1]), "one subject, one number");
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 200);
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM external_users").await, 200);
        // Once known they cost the database nothing: more than may wait for it ask at once.
        let clicks = (0..1_000).map(|number| me(&app.client, &tokens[number % tokens.len()]));
        for reply in futures_util::future::join_all(clicks).await {
            reply.is(200);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_token_of_the_directory_is_refused() {
    let with_audience = |config: &mut Config| {
        with_secret(config);
        config.auth.external.audience = "seckill".to_owned();
    };
    TestApp::on_both(with_audience, async |app: &mut TestApp| {
        let now = seconds();
        let mut good = claims("alice");
        good["aud"] = json!(["elsewhere", "seckill"]);
        me(&app.client, &signed(&good, SECRET)).await.is(200);
        for (claim, value) in [
            ("iss", json!("https://shop.example/")),
            ("iss", json!("seckill")),
            ("sub", json!("")),
            ("sub", json!("x".repeat(256))),
            ("sub", json!(4)),
            ("aud", json!("elsewhere")),
            ("aud", Value::Null),
            ("exp", json!(now)),
            ("exp", json!("tomorrow")),
            ("nbf", json!(now + 120)),
            ("iat", json!(now + 120)),
        ] {
            let mut claims = good.clone();
            claims[claim] = value;
            me(&app.client, &signed(&claims, SECRET)).await.is_problem(401, "unauthorized");
        }
        let token = signed(&good, SECRET);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let (_, body) = message.split_once('.').unwrap();
        let headed = |header: Value| format!("{}.{body}", URL_SAFE_NO_PAD.encode(header.to_string()));
        let sign = |message: String, algorithm: Algorithm| {
            let key = EncodingKey::from_secret(SECRET.as_bytes());
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
            format!("{message}.{signature}")
        };
        for forged in [
            format!("{}.", headed(json!({"alg": "none"}))),
            format!("{}.{signature}", headed(json!({"alg": "none"}))),
            sign(headed(json!({"alg": "HS512"})), Algorithm::HS512),
            sign(headed(json!({"alg": "HS256", "crit": ["exp"]})), Algorithm::HS256),
            signed(&good, "another secret of more than thirty-two bytes"),
            format!("{message}.{}", signature.chars().rev().collect::<String>()),
            format!("{message}."),
            message.to_owned(),
        ] {
            me(&app.client, &forged).await.is_problem(401, "unauthorized");
        }
        // A buyer's token of ours, from before the directory was configured.
        me(&app.client, &app.client.buyer(7)).await.is_problem(401, "unauthorized");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_administrators_log_in_nobody_registers_and_a_role_counts_only_when_trusted() {
    TestApp::on_both(with_secret, async |app: &mut TestApp| {
        for body in [credentials("alice", PASSWORD), json!({"typo": 1})] {
            app.client.post("/register", None, body).await.is_problem(404, "not_found");
        }
        // One of the time before.
        let hash = "(SELECT password_hash FROM (SELECT password_hash FROM users) AS all_users)";
        app.stores
            .execute(&format!(
                "INSERT INTO users (username, username_key, password_hash, role, created_at) \
                 VALUES ('alice', 'alice', {hash}, 'buyer', '2026-11-27 00:00:00.000')"
            ))
            .await;
        let password = app.config.admin.password.clone();
        let alice = credentials("alice", secrecy::ExposeSecret::expose_secret(&password));
        app.client.post("/login", None, alice).await.is_problem(401, "invalid_credentials");
        let mut boss = claims("boss");
        boss["role"] = json!("admin");
        let boss = signed(&boss, SECRET);
        let product = json!({"name": "Sneaker", "price_cents": 1, "stock": 1});
        assert_eq!(me(&app.client, &boss).await.is(200)["role"], "buyer");
        app.client.post("/products", Some(&boss), product.clone()).await.is_problem(403, "forbidden");
        app.config.auth.external.trust_role = true;
        app.restart().await;
        app.client.post("/products", Some(&boss), product.clone()).await.is(201);
        app.client.post("/products", Some(&token("alice")), product).await.is_problem(403, "forbidden");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buyer_of_the_directory_logs_out_and_comes_back_with_a_newer_token() {
    TestApp::on_both(with_secret, async |app: &mut TestApp| {
        let mut old = claims("alice");
        old["iat"] = json!(seconds() - 5);
        let mut undated = claims("alice");
        undated.as_object_mut().unwrap().remove("iat");
        let (old, undated) = (signed(&old, SECRET), signed(&undated, SECRET));
        for token in [&old, &undated, &token("bob")] {
            me(&app.client, token).await.is(200);
        }
        app.client.call(Method::POST, "/logout", Some(&old), None).await.is(204);
        for token in [&old, &undated] {
            me(&app.client, token).await.is_problem(401, "unauthorized");
        }
        me(&app.client, &token("bob")).await.is(200);
        // One issued within the second of the log-out is withdrawn too.
        eventually("a new token is good", || async { me(&app.client, &token("alice")).await.status == 200 }).await;
        app.restart().await;
        for token in [&old, &undated] {
            me(&app.client, token).await.is_problem(401, "unauthorized");
        }
        me(&app.client, &token("alice")).await.is(200);
        let change = json!({"current": PASSWORD, "new": "another horse"});
        app.client.post("/me/password", Some(&token("alice")), change).await.is_problem(401, "invalid_credentials");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_out_is_known_to_every_instance_within_five_seconds() {
    let both = |config: &mut Config| config.auth.users = Users::Local;
    TestApp::run_with(Backend::Distributed, both, async |app: &mut TestApp| {
        let other = RunningApp::start(&app.config).await.unwrap();
        let there = Client::new(other.address(), &app.config);
        let alice = crate::accounts::register(&app.client, "alice").await;
        let bob = crate::accounts::register(&app.client, "bob").await;
        for token in [&alice, &bob] {
            me(&there, token).await.is(200);
        }
        app.client.call(Method::POST, "/logout", Some(&alice), None).await.is(204);
        let change = json!({"current": PASSWORD, "new": "another horse"});
        app.client.post("/me/password", Some(&bob), change).await.is(204);
        for token in [&alice, &bob] {
            eventually_within(5, "it is refused there", || async { me(&there, token).await.status == 401 }).await;
        }
        // A new one is good at once, there too.
        me(&there, &log_in(&app.client, "alice", PASSWORD).await).await.is(200);
        other.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registration_can_be_closed() {
    TestApp::on_both(
        |config| config.auth.registration = Registration::Closed,
        async |app: &mut TestApp| {
            app.client.post("/register", None, credentials("alice", PASSWORD)).await.is_problem(404, "not_found");
            app.client.log_in_as_admin().await;
            me(&app.client, &app.client.token(7, Role::Buyer)).await.is(200);
        },
    )
    .await;
}

/// A key pair, and what a JWK Set says of it.
struct Pair {
    key: EncodingKey,
    algorithm: Algorithm,
    public: Value,
}

impl Pair {
    fn new(id: &str, algorithm: Algorithm, der: &[u8]) -> Self {
        let key = match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_der(der),
            Algorithm::EdDSA => EncodingKey::from_ed_der(der),
            _ => EncodingKey::from_rsa_der(der),
        };
        let mut public = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
        public["kid"] = json!(id);
        public["use"] = json!("sig");
        Self { key, algorithm, public }
    }

    fn sign(&self, key_id: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = key_id.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

/// Keys that sign nothing but these tests' tokens.
fn pairs() -> [Pair; 3] {
    [
        Pair::new("rsa", Algorithm::RS256, include_bytes!("keys/rsa.der")),
        Pair::new("ec", Algorithm::ES256, include_bytes!("keys/ec.der")),
        Pair::new("ed", Algorithm::EdDSA, include_bytes!("keys/ed.der")),
    ]
}

fn new_pair() -> Pair {
    Pair::new("new", Algorithm::EdDSA, include_bytes!("keys/ed_new.der"))
}

fn set(keys: &[Value]) -> Vec<u8> {
    json!({"keys": keys}).to_string().into_bytes()
}

fn public(pairs: &[Pair]) -> Vec<Value> {
    pairs.iter().map(|pair| pair.public.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_file_are_believed_each_for_its_own_algorithm_and_read_again_when_they_change() {
    let file = std::env::temp_dir().join(format!("seckill-keys-{}.json", uuid::Uuid::now_v7()));
    let pairs = pairs();
    let mut keys = public(&pairs);
    // What a set may hold besides.
    keys.push(json!({"kty": "oct", "kid": "shared", "k": URL_SAFE_NO_PAD.encode(SECRET)}));
    keys.push(json!({"kty": "unheard of", "kid": "odd"}));
    let mut encrypts = new_pair().public;
    encrypts["use"] = json!("enc");
    encrypts["kid"] = json!("encrypts");
    keys.push(encrypts);
    let short = Pair::new("short", Algorithm::RS256, include_bytes!("keys/rsa_short.der"));
    keys.push(short.public.clone());
    std::fs::write(&file, set(&keys)).unwrap();
    let path: PathBuf = file.clone();
    let configure = move |config: &mut Config| {
        config.auth.users = Users::External;
        config.auth.external.issuer = ISSUER.to_owned();
        config.auth.external.jwks_file = path;
    };
    TestApp::run_with(Backend::Embedded, configure, async |app: &mut TestApp| {
        let alice = claims("alice");
        for pair in &pairs {
            let id = pair.public["kid"].as_str();
            me(&app.client, &pair.sign(id, &alice)).await.is(200);
            me(&app.client, &pair.sign(None, &alice)).await.is(200);
            me(&app.client, &pair.sign(Some("unknown"), &alice)).await.is_problem(401, "unauthorized");
            let others = pairs.iter().find(|other| other.algorithm != pair.algorithm).unwrap();
            me(&app.client, &pair.sign(others.public["kid"].as_str(), &alice)).await.is_problem(401, "unauthorized");
        }
        let new = new_pair();
        me(&app.client, &new.sign(Some("encrypts"), &alice)).await.is_problem(401, "unauthorized");
        me(&app.client, &short.sign(Some("short"), &alice)).await.is_problem(401, "unauthorized");
        // A secret that everybody can read, and a public key taken for one.
        me(&app.client, &signed(&alice, SECRET)).await.is_problem(401, "unauthorized");
        let modulus = pairs[0].public["n"].as_str().unwrap();
        me(&app.client, &signed(&alice, modulus)).await.is_problem(401, "unauthorized");

        let old = pairs[2].sign(Some("ed"), &claims("bob"));
        me(&app.client, &old).await.is(200);
        std::fs::write(&file, set(std::slice::from_ref(&new.public))).unwrap();
        eventually("the new key is known", || async {
            me(&app.client, &new.sign(Some("new"), &alice)).await.status == 200
        })
        .await;
        me(&app.client, &old).await.is_problem(401, "unauthorized");
        std::fs::write(&file, b"half a fi").unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        me(&app.client, &new.sign(Some("new"), &claims("carol"))).await.is(200);
    })
    .await;
    std::fs::remove_file(file).unwrap();
}

/// Serves whatever it is told to, and counts.
struct KeyServer {
    address: std::net::SocketAddr,
    reply: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    asked: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl KeyServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            Self { address: listener.local_addr().unwrap(), reply: Default::default(), asked: Default::default() };
        let (reply, asked) = (server.reply.clone(), server.asked.clone());
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let reply = reply.lock().unwrap().clone();
                tokio::spawn(async move {
                    let mut head = [0; 4096];
                    let _ = connection.read(&mut head).await;
                    let _ = connection.write_all(&reply).await;
                });
            }
        });
        server
    }

    fn serve(&self, status: &str, body: &[u8]) {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        *self.reply.lock().unwrap() = [head.as_bytes(), body].concat();
    }

    fn asked(&self) -> usize {
        self.asked.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn configure(&self) -> impl FnOnce(&mut Config) + use<> {
        let url = format!("http://{}/keys", self.address);
        move |config: &mut Config| {
            config.auth.users = Users::External;
            config.auth.external.issuer = ISSUER.to_owned();
            config.auth.external.jwks_url = url;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_an_address_are_read_anew_for_an_unknown_one_but_not_for_each_token() {
    let server = KeyServer::start().await;
    server.serve("200 OK", &set(&public(&pairs())));
    TestApp::run_with(Backend::Embedded, server.configure(), async |app: &mut TestApp| {
        let (old, new, alice) = (&pairs()[0], new_pair(), claims("alice"));
        eventually("the keys are there", || async {
            me(&app.client, &old.sign(Some("rsa"), &alice)).await.status == 200
        })
        .await;
        assert_eq!(server.asked(), 1);
        server.serve("200 OK", &set(&[new.public.clone(), old.public.clone()]));
        for _ in 0..20 {
            me(&app.client, &new.sign(Some("forged"), &alice)).await.is_problem(401, "unauthorized");
        }
        assert!(server.asked() <= 2, "asked {} times", server.asked());
        eventually_within(15, "the new key is known", || async {
            me(&app.client, &new.sign(Some("new"), &alice)).await.status == 200
        })
        .await;
        me(&app.client, &old.sign(Some("rsa"), &alice)).await.is(200);
        assert!(server.asked() <= 3, "asked {} times", server.asked());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_answers_nonsense_lets_nobody_in_and_says_come_again() {
    let (elsewhere, server) = (KeyServer::start().await, KeyServer::start().await);
    elsewhere.serve("200 OK", &set(&public(&pairs())));
    for (status, body) in [
        (format!("302 Found\r\nLocation: http://{}/keys", elsewhere.address), set(&public(&pairs()))),
        ("200 OK".to_owned(), b"<html>".to_vec()),
        ("200 OK".to_owned(), set(&[])),
        ("200 OK".to_owned(), [set(&public(&pairs())), vec![b' '; 300_000]].concat()),
        ("500 Oh".to_owned(), set(&public(&pairs()))),
    ] {
        server.serve(&status, &body);
        TestApp::run_with(Backend::Embedded, server.configure(), async |app: &mut TestApp| {
            let token = pairs()[0].sign(Some("rsa"), &claims("alice"));
            me(&app.client, &token).await.is_problem(503, "unavailable");
            app.client.log_in_as_admin().await;
        })
        .await;
    }
    assert_eq!(elsewhere.asked(), 0, "redirects are not followed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_keys_that_cannot_be_read_stops_the_start() {
    let stores = crate::support::Stores::new(Backend::Embedded).await;
    let mut config = stores.config();
    config.auth.users = Users::External;
    config.auth.external.issuer = ISSUER.to_owned();
    config.auth.external.jwks_file = "/nowhere/keys.json".into();
    let problem = RunningApp::start(&config).await.err().unwrap().to_string();
    assert!(problem.contains("auth.external.jwks_file: /nowhere/keys.json") && !problem.contains('\n'), "{problem}");
    stores.remove().await;
}
