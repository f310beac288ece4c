//! The server that is measured, from outside: products put on sale, buyers with tokens, requests behind a progress bar.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::generator::{Load, Run, ask, fire, request, request_with_form};
use crate::model::{OrderId, ProductId, Role, Timestamp, UserId};
use crate::services::{Identity, Tokens};

/// Buyers come in no order, as they do in life: their ids are far apart, which is the harder case for an index.
const STRIDE: u64 = 2_654_435_761;
const USERS: u64 = 1 << 32;

/// The administrator of the first start is the first user.
const ADMIN: u64 = 1;

/// The user id of a buyer; another one for each number.
pub(super) fn buyer(number: u32) -> u64 {
    2 + u64::from(number).wrapping_mul(STRIDE) % USERS
}

/// The address of the server that is measured, and what its tokens are signed with.
pub(super) struct TargetApi {
    address: SocketAddr,
    tokens: Tokens,
    /// If they are to be written as another build writes them.
    form: Option<Form>,
    products: Mutex<Vec<ProductId>>,
}

impl TargetApi {
    pub(super) fn new(address: SocketAddr, tokens: Tokens) -> Self {
        Self { address, tokens, form: None, products: Mutex::default() }
    }

    /// The same with tokens in the form in which the server issues them: another build may write other claims, and read
    /// what it does not write itself more slowly.
    pub(super) async fn with_tokens_as_issued(self, secret: &SecretString) -> Result<Self, String> {
        let name = uuid::Uuid::now_v7().simple().to_string();
        let account = format!(r#"{{"username":"{name}","password":"correct horse"}}"#);
        let post = async |path: &str, expected: u16| {
            let answered = ask(self.address, &request("POST", path, None, Some(&account))).await;
            match answered.map_err(|error| format!("{path}: {error}"))? {
                (status, reply) if status == expected => Ok(reply),
                (status, reply) => Err(format!("{path}: {status} {reply}")),
            }
        };
        // A build of before gives no token to who registers.
        post("/register", 201).await?;
        let form = Form::of(&post("/login", 200).await?, secret).ok_or("/login: its token is not understood")?;
        Ok(Self { form: Some(form), ..self })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all sales that it has begun, so that none stays open in a database that outlives the bench.
    pub(super) async fn end_sales(&self) -> Result<(), String> {
        let products = std::mem::take(&mut *self.products.lock());
        let admin = self.token(ADMIN, Role::Admin)?;
        let end = format!(r#"{{"ends_at":"{}"}}"#, Timestamp::now());
        for product in products {
            let patch = request("PATCH", &format!("/products/{product}"), Some(&admin), Some(&end));
            match ask(self.address, &patch).await {
                Ok((200, _)) => {}
                other => return Err(format!("ending the sale of product {product}: {other:?}")),
            }
        }
        Ok(())
    }

    /// Puts a product on sale.
    pub(super) async fn new_product(&self, stock: usize) -> Result<ProductId, String> {
        self.new_product_with(stock, "").await
    }

    /// Puts a product on sale that must be paid within so many seconds.
    pub(super) async fn new_product_to_be_paid(&self, stock: usize, window: u64) -> Result<ProductId, String> {
        self.new_product_with(stock, &format!(r#","payment_window_seconds":{window}"#)).await
    }

    /// Puts a product on sale with more fields than these.
    pub(super) async fn new_product_with(&self, stock: usize, more: &str) -> Result<ProductId, String> {
        let admin = self.token(ADMIN, Role::Admin)?;
        let product = format!(r#"{{"name":"Sneaker, limited","price_cents":19900,"stock":{stock}{more}}}"#);
        let request = request("POST", "/products", Some(&admin), Some(&product));
        let problem = |what: &dyn std::fmt::Display| format!("a new product: {what}");
        let (status, reply) = ask(self.address, &request).await.map_err(|error| problem(&error))?;
        let id = serde_json::from_str::<Value>(&reply).ok().and_then(|reply| reply["id"].as_i64());
        match id {
            Some(id) if status == 201 => {
                let id: ProductId = id.try_into().map_err(|error| problem(&error))?;
                self.products.lock().push(id);
                Ok(id)
            }
            _ => Err(problem(&format!("{status} {reply}"))),
        }
    }

    /// An endpoint that is told of one type of event.
    pub(super) async fn new_endpoint(&self, url: &str, event: &str) -> Result<(), String> {
        let admin = self.token(ADMIN, Role::Admin)?;
        let endpoint = format!(r#"{{"url":"{url}","events":["{event}"]}}"#);
        match ask(self.address, &request("POST", "/admin/webhooks", Some(&admin), Some(&endpoint))).await {
            Ok((201, _)) => Ok(()),
            other => Err(format!("a new endpoint: {other:?}")),
        }
    }

    /// One click each of as many buyers, from the one of that number on.
    pub(super) fn clicks(&self, product: ProductId, first: usize, count: usize) -> Result<Vec<Vec<u8>>, String> {
        let path = format!("/seckill/{product}");
        let click = |number: usize| {
            let token = self.token(buyer(number as u32), Role::Buyer)?;
            Ok(request("POST", &path, Some(&token), None))
        };
        (first..first + count).map(click).collect()
    }

    /// What can be bought now.
    pub(super) async fn remaining(&self, product: ProductId) -> Result<i64, String> {
        let asked = ask(self.address, &request("GET", &format!("/products/{product}"), None, None)).await;
        let (_, reply) = asked.map_err(|error| format!("product {product}: {error}"))?;
        let page = serde_json::from_str::<Value>(&reply).ok();
        page.and_then(|page| page["remaining"].as_i64()).ok_or_else(|| format!("product {product}: {reply}"))
    }

    /// A buyer pays an order at the test provider.
    pub(super) async fn pay(&self, user: i64, order: OrderId) -> Result<(), String> {
        let token = self.token(user as u64, Role::Buyer)?;
        let failed = |what: &dyn std::fmt::Display| format!("paying order {order}: {what}");
        let begin = request("POST", &format!("/orders/{order}/payments"), Some(&token), None);
        let (status, reply) = ask(self.address, &begin).await.map_err(|error| failed(&error))?;
        let payment = serde_json::from_str::<Value>(&reply).ok();
        let page = payment.and_then(|payment| payment["redirect_url"].as_str().map(str::to_owned));
        let page = page.ok_or_else(|| failed(&format!("{status} {reply}")))?;
        let (status, reply) =
            ask(self.address, &request_with_form(&page, "outcome=pay")).await.map_err(|error| failed(&error))?;
        if (200..400).contains(&status) { Ok(()) } else { Err(failed(&format!("{status} {reply}"))) }
    }

    fn token(&self, user: u64, role: Role) -> Result<String, String> {
        let user_id = UserId::try_from(user as i64).map_err(str::to_owned)?;
        let identity = Identity { user_id, role };
        match &self.form {
            Some(form) => Ok(form.sign(identity)),
            None => self.tokens.issue(identity).map_err(|error| error.to_string()),
        }
    }
}

/// A token of the server's, to be signed again for somebody else.
struct Form {
    header: String,
    claims: String,
    whose: String,
    key: hmac::Key,
}

impl Form {
    /// Of the reply to a log-in of a buyer.
    fn of(reply: &str, secret: &SecretString) -> Option<Self> {
        let reply: Value = serde_json::from_str(reply).ok()?;
        let mut parts = reply["access_token"].as_str()?.split('.');
        let (header, claims) = (parts.next()?.to_owned(), URL_SAFE_NO_PAD.decode(parts.next()?).ok()?);
        let whose = serde_json::from_slice::<Value>(&claims).ok()?["sub"].as_str()?.to_owned();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        Some(Self { header, claims: String::from_utf8(claims).ok()?, whose: format!(r#""sub":"{whose}""#), key })
    }

    fn sign(&self, Identity { user_id, role }: Identity) -> String {
        let claims = self.claims.replacen(&self.whose, &format!(r#""sub":"{user_id}""#), 1);
        let claims = claims.replacen(r#""role":"buyer""#, &format!(r#""role":"{}""#, role.as_str()), 1);
        let message = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// Sends a load behind a progress bar. `answered` counts along.
pub(super) async fn fire_with_bar(load: Load, title: &str, answered: &Arc<AtomicUsize>) -> Result<Run, String> {
    let bar = ProgressBar::new(load.count as u64);
    if let Ok(style) = ProgressStyle::with_template("{msg:44} {bar:30} {pos:>7}/{len} {per_sec}") {
        bar.set_style(style);
    }
    bar.set_message(title.to_owned());
    let moving = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            bar.set_position(answered.load(Ordering::Relaxed) as u64);
        }
    };
    let run = tokio::select! {
        run = fire(load, answered.clone()) => run,
        () = moving => return Err("the progress bar has ended".to_owned()),
    };
    bar.finish_and_clear();
    run.map_err(|error| format!("{title}: {error}"))
}

/// A folder for the embedded backend; deleted when dropped.
pub(super) struct BenchFolder(pub(super) PathBuf);

impl BenchFolder {
    pub(super) fn make() -> Result<Self, String> {
        // Under target where there is one: the system's folder for temporary files is often only in memory.
        let parent = if PathBuf::from("target").is_dir() { PathBuf::from("target") } else { std::env::temp_dir() };
        let path = parent.join(format!("bench-data-{}", uuid::Uuid::now_v7().simple()));
        let made = std::fs::create_dir_all(&path).and_then(|()| path.canonicalize());
        Ok(Self(made.map_err(|error| format!("{}: {error}", path.display()))?))
    }
}

impl Drop for BenchFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn every_click_is_another_buyer() {
        let tokens = Tokens::new(&"0123456789abcdef0123456789abcdef".into(), Duration::from_secs(60));
        let api = TargetApi::new(([127, 0, 0, 1], 1).into(), tokens);
        let clicks = api.clicks(1.try_into().unwrap(), 0, 5_000).unwrap();
        assert_eq!(clicks.iter().collect::<HashSet<_>>().len(), 5_000);
    }

    #[test]
    fn a_token_is_signed_again_for_somebody_else() {
        let secret = SecretString::from("0123456789abcdef0123456789abcdef");
        let tokens = Tokens::new(&secret, Duration::from_secs(60));
        let user = |id: i64, role| Identity { user_id: id.try_into().unwrap(), role };
        let issued = tokens.issue(user(2, Role::Buyer)).unwrap();
        let form = Form::of(&json!({ "access_token": issued }).to_string(), &secret).unwrap();
        for identity in [user(2, Role::Buyer), user(77, Role::Buyer), user(1, Role::Admin)] {
            assert_eq!(tokens.check(&form.sign(identity)).unwrap().identity, identity);
        }
    }
}
