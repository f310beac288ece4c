//! A client of the HTTP API.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use seckill::config::Config;
use seckill::model::Role;
use seckill::services::{Identity, Tokens};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::described;

pub struct Client {
    address: SocketAddr,
    base: String,
    http: reqwest::Client,
    tokens: Tokens,
    admin: (String, String),
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Reply {
    /// Checks that this is a problem as RFC 9457 has it, with this status and code.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], "about:blank");
        assert!(self.body["title"].is_string() && self.body["detail"].is_string(), "{self:?}");
        assert!(self.headers.contains_key("x-request-id"), "{self:?}");
        if status == 429 {
            let header = |name: &str| self.headers[name].to_str().unwrap();
            let (wait, limit) = (header("retry-after"), header("ratelimit"));
            assert!(limit.starts_with('"') && limit.ends_with(&format!("\";r=0;t={wait}")), "{self:?}");
        }
    }

    /// The same, for a 400 whose detail names a field.
    #[track_caller]
    pub fn is_invalid(&self, field: &str) {
        self.is_problem(400, "invalid_request");
        assert!(self.body["detail"].as_str().unwrap().contains(field), "{field}: {self:?}");
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.body
    }
}

impl Client {
    pub fn new(address: SocketAddr, config: &Config) -> Self {
        let lifetime = Duration::from_secs(config.auth.token_ttl_seconds.into());
        Self {
            address,
            base: format!("http://{address}"),
            http: reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap(),
            tokens: Tokens::new(&config.auth.jwt_secret, lifetime),
            admin: (config.admin.username.clone(), config.admin.password.expose_secret().to_owned()),
        }
    }

    /// Where it is served.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A token as the shop's own user directory would sign it.
    pub fn token(&self, user: i64, role: Role) -> String {
        self.tokens.issue(Identity { user_id: user.try_into().unwrap(), role }).unwrap()
    }

    pub fn buyer(&self, user: i64) -> String {
        self.token(user, Role::Buyer)
    }

    pub fn admin(&self) -> String {
        self.token(1, Role::Admin)
    }

    /// A request with anything in it; everything else here is made of it.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let request = request.build().expect("a request");
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let reply = self.http.execute(request).await.expect("a reply");
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        let text = reply.text().await.expect("the whole reply");
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") };
        let reply = Reply { status, headers, body };
        described::check(&method, &path, &reply);
        reply
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a connection of their own; whatever comes back until the server closes it, which it must.
    pub async fn send_raw(&self, bytes: &[u8]) -> String {
        let mut connection = self.connect().await;
        connection.write_all(bytes).await.unwrap();
        let mut reply = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut reply)).await;
        // A reset is an end as well.
        let _ = closed.expect("the server closes the connection");
        String::from_utf8_lossy(&reply).into_owned()
    }

    pub async fn call(&self, method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> Reply {
        let mut request = self.request(method, path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.send(request).await
    }

    pub async fn get(&self, path: &str, token: Option<&str>) -> Reply {
        self.call(Method::GET, path, token, None).await
    }

    pub async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Reply {
        self.call(Method::POST, path, token, Some(body)).await
    }

    pub async fn patch(&self, path: &str, token: Option<&str>, body: Value) -> Reply {
        self.call(Method::PATCH, path, token, Some(body)).await
    }

    /// The administrator's own token, by logging in.
    pub async fn log_in_as_admin(&self) -> String {
        let credentials = json!({"username": self.admin.0, "password": self.admin.1});
        self.post("/login", None, credentials).await.is(200)["access_token"].as_str().unwrap().to_owned()
    }

    /// Puts a product on sale now.
    pub async fn new_product(&self, stock: i64) -> i64 {
        let product = json!({"name": "Sneaker", "price_cents": 19_900, "stock": stock});
        self.post("/products", Some(&self.admin()), product).await.is(201)["id"].as_i64().unwrap()
    }

    pub async fn product(&self, id: i64) -> Value {
        self.get(&format!("/products/{id}"), None).await.is(200)
    }

    pub async fn buy(&self, user: i64, product: i64) -> Reply {
        self.call(Method::POST, &format!("/seckill/{product}"), Some(&self.buyer(user)), None).await
    }

    /// The same at an address as it is written.
    pub async fn buy_at(&self, user: i64, id: &str) -> Reply {
        self.call(Method::POST, &format!("/seckill/{id}"), Some(&self.buyer(user)), None).await
    }

    pub async fn order(&self, user: i64, order: &str) -> Reply {
        self.get(&format!("/orders/{order}"), Some(&self.buyer(user))).await
    }
}
