//! Who may do what: every operation of the API, asked by everybody. A new one that has no rule here is taken for an administrator's.

use std::time::Duration;

use reqwest::Method;
use seckill::config::Config;
use seckill::model::Role;
use seckill::services::{Identity, Tokens};
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::Client;
use crate::support::eventually;

/// Anybody may ask, without a token.
const OF_ANYBODY: [&str; 12] = [
    "GET /events",
    "GET /healthz",
    "POST /login",
    "GET /metrics",
    "GET /openapi.json",
    "POST /payments/webhooks/{provider}",
    "GET /products",
    "GET /products/{id}",
    "GET /readyz",
    "POST /register",
    "GET /shop/settings",
    "GET /time",
];
/// Every user may, for themselves.
const OF_USERS: [&str; 5] = ["POST /logout", "GET /me", "POST /me/password", "GET /orders", "POST /seckill/{id}"];
/// Only whose order or payment it is may, beside administrators where they only look.
const OF_THEIR_BUYER: [&str; 6] = [
    "GET /orders/{id}",
    "POST /orders/{id}/cancel",
    "GET /orders/{id}/events",
    "GET /orders/{id}/payments",
    "POST /orders/{id}/payments",
    "GET /payments/{id}",
];
const OWNER: i64 = 7;
const OTHER: i64 = 8;

/// All operations of the document, as `METHOD /path`.
fn operations() -> Vec<String> {
    let document: Value = serde_json::from_str(&seckill::handlers::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let of = |path: &str, item: &Value| -> Vec<String> {
        item.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())).collect()
    };
    paths.iter().flat_map(|(path, item)| of(path, item)).collect()
}

/// What the addresses of the operations name.
struct Things {
    product: i64,
    order: String,
    payment: String,
    endpoint: String,
}

impl Things {
    /// An order of [`OWNER`], with a payment; an endpoint.
    async fn make(app: &TestApp) -> Self {
        let product = app.client.new_product(50).await;
        let order = app.client.buy(OWNER, product).await.is(202)["order_id"].as_str().unwrap().to_owned();
        eventually("the order is written", || async {
            app.client.order(OWNER, &order).await.body["status"] == "unpaid"
        })
        .await;
        let begin = format!("/orders/{order}/payments");
        let payment = app.client.post(&begin, Some(&app.client.buyer(OWNER)), json!({})).await.is(201);
        let endpoint = json!({"url": "http://127.0.0.1:9/hook", "events": ["order.paid"]});
        let endpoint = app.client.post("/admin/webhooks", Some(&app.client.admin()), endpoint).await.is(201);
        let id = |thing: &Value| thing["id"].as_str().map_or_else(|| thing["id"].to_string(), str::to_owned);
        Self { product, order, payment: id(&payment), endpoint: id(&endpoint) }
    }

    fn address(&self, path: &str) -> String {
        let id = match path {
            path if path.contains("/orders/") => &self.order,
            path if path.contains("/payments/") => &self.payment,
            path if path.contains("/webhooks/") => &self.endpoint,
            path if path.contains("/dead-letters/") => "no-such-letter",
            _ => &self.product.to_string(),
        };
        path.replace("{id}", id).replace("{delivery_id}", &self.order).replace("{provider}", "test")
    }
}

/// The status alone: a stream goes on.
async fn status(app: &TestApp, operation: &str, things: &Things, token: Option<&str>) -> u16 {
    let (method, path) = operation.split_once(' ').unwrap();
    let method: Method = method.parse().unwrap();
    let mut request = app.client.request(method.clone(), &things.address(path));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if method == Method::PATCH || (method == Method::POST && !path.starts_with("/seckill")) {
        request = request.json(&json!({}));
    }
    request.send().await.unwrap().status().as_u16()
}

fn is_let_in(status: u16) -> bool {
    status != 401 && status != 403
}

/// Tokens that are none: of another key, with another role than was signed, without a signature, withdrawn, and no token at all.
async fn bad_tokens(app: &TestApp) -> Vec<(&'static str, String)> {
    let admin = Identity { user_id: 1.try_into().unwrap(), role: Role::Admin };
    let other_key = "another key of more than thirty-two characters".to_owned().into();
    let foreign = Tokens::new(&other_key, Duration::from_secs(600)).issue(admin).unwrap();
    let buyer = app.client.buyer(OTHER);
    let (signed, admins) = (buyer.split('.').collect::<Vec<_>>(), app.client.admin());
    let forged = [signed[0], admins.split('.').nth(1).unwrap(), signed[2]].join(".");
    let unsigned = [signed[0], signed[1], ""].join(".");
    let withdrawn = app.client.buyer(99);
    app.client.post("/logout", Some(&withdrawn), json!({})).await.is(204);
    vec![
        ("of another key", foreign),
        ("forged", forged),
        ("unsigned", unsigned),
        ("withdrawn", withdrawn),
        ("none", "x".to_owned()),
    ]
}

async fn ask_everything(app: &mut TestApp) {
    let things = Things::make(app).await;
    let bad = bad_tokens(app).await;
    let (owner, other, admin) = (app.client.buyer(OWNER), app.client.buyer(OTHER), app.client.admin());
    let mut wrong = Vec::new();
    let operations = operations();
    // What ends something comes last, so that the others find it.
    let (last, first): (Vec<_>, Vec<_>) =
        operations.iter().partition(|operation| operation.starts_with("DELETE") || operation.ends_with("/logout"));
    for operation in first.into_iter().chain(last) {
        let ask = async |who: &str, token: Option<&str>| (who.to_owned(), status(app, operation, &things, token).await);
        let mut refused = vec![ask("nobody", None).await];
        for (kind, token) in &bad {
            refused.push(ask(kind, Some(token)).await);
        }
        let is_of = |rules: &[&str]| rules.contains(&operation.as_str());
        if is_of(&OF_ANYBODY) {
            wrong.extend(
                refused
                    .into_iter()
                    .take(1)
                    .filter(|(_, status)| !is_let_in(*status))
                    .map(|refused| (operation, refused)),
            );
            continue;
        }
        wrong.extend(refused.into_iter().filter(|(_, status)| *status != 401).map(|refused| (operation, refused)));
        let other = ask("another buyer", Some(&other)).await;
        let owner = ask("the buyer", Some(&owner)).await;
        let admin = ask("an administrator", Some(&admin)).await;
        if is_of(&OF_USERS) {
            wrong.extend(
                [other, owner].into_iter().filter(|(_, status)| !is_let_in(*status)).map(|one| (operation, one)),
            );
        } else if is_of(&OF_THEIR_BUYER) {
            wrong.extend((other.1 != 404).then_some((operation, other)));
            wrong.extend((!is_let_in(owner.1) || owner.1 == 404).then_some((operation, owner)));
            wrong.extend((!is_let_in(admin.1)).then_some((operation, admin)));
        } else {
            wrong.extend([other, owner].into_iter().filter(|(_, status)| *status != 403).map(|one| (operation, one)));
            wrong.extend((!is_let_in(admin.1)).then_some((operation, admin)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let unknown = |rule: &&&str| !operations.iter().any(|operation| operation == **rule);
    let rules = OF_ANYBODY.iter().chain(&OF_USERS).chain(&OF_THEIR_BUYER);
    assert_eq!(rules.filter(unknown).collect::<Vec<_>>(), Vec::<&&str>::new(), "a rule without an operation");
}

/// Where administrators have a port of their own, nothing of theirs is at the other one, and everything is at theirs.
async fn ask_both_ports(app: &mut TestApp) {
    let things = Things::make(app).await;
    let (buyers, admin) = (app.client_of_buyers(), app.client.admin());
    let is_nowhere = async |client: &Client, method: &str, path: &str| {
        let request = client.request(method.parse().unwrap(), path).bearer_auth(&admin).json(&json!({}));
        let reply = request.send().await.unwrap();
        if ![404, 405].contains(&reply.status().as_u16()) {
            return false;
        }
        let code = reply.json::<Value>().await.unwrap()["code"].clone();
        code == "not_found" || code == "method_not_allowed"
    };
    let pages = ["/shop", "/docs", "/console", "/console/sales"].map(|path| format!("GET {path}"));
    let mut wrong = Vec::new();
    // The last of all withdraws the token.
    let (last, first): (Vec<_>, Vec<_>) =
        operations().into_iter().chain(pages).partition(|operation| operation.ends_with("/logout"));
    for operation in first.into_iter().chain(last) {
        let (method, path) = operation.split_once(' ').unwrap();
        let of_buyers = OF_ANYBODY.iter().chain(&OF_USERS).chain(&OF_THEIR_BUYER).chain(&["GET /shop", "GET /docs"]);
        let is_of_merchants = operation == "GET /metrics" || !of_buyers.into_iter().any(|rule| *rule == operation);
        let address = things.address(path);
        let found = (is_nowhere(&buyers, method, &address).await, is_nowhere(&app.client, method, &address).await);
        wrong.extend((found != (is_of_merchants, false)).then_some((operation, found)));
    }
    assert!(wrong.is_empty(), "at the port of buyers, at that of administrators it is not there: {wrong:#?}");
    for line in [
        "HEAD /metrics",
        "GET http://x/admin/live",
        "GET http://x/console",
        "GET //metrics",
        "GET /./metrics",
        "GET /%6detrics",
        "GET /x/../metrics",
        "GET /metrics/",
        "GET /METRICS",
        "GET http://x/metrics",
        "GET /admin%2flive",
    ] {
        let ask = format!("{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin}\r\nconnection: close\r\n\r\n");
        let reply = buyers.send_raw(ask.as_bytes()).await;
        assert!(["301", "308", "400", "404"].contains(&reply.split(' ').nth(1).unwrap_or_default()), "{line}: {reply}");
    }
    let allowed = buyers.request(Method::OPTIONS, "/products").send().await.unwrap();
    assert_eq!(allowed.headers()["allow"], "GET, HEAD, OPTIONS");
    buyers.buy(OTHER, things.product).await.is(202);
}

async fn spell_otherwise(app: &mut TestApp) {
    let things = Things::make(app).await;
    let order = &things.order;
    let buyer = app.client.buyer(OTHER);
    let mut open = Vec::new();
    for path in
        ["/admin/products", "/admin/live", &format!("/orders/{order}"), &format!("/admin/orders/{order}/history")]
    {
        let rest = &path[1..];
        let (first, after) = rest.split_at(1);
        let spelled = [
            format!("//{rest}"),
            format!("/./{rest}"),
            format!("/x/../{rest}"),
            format!("/%{:02x}{after}", first.as_bytes()[0]),
            format!("/%25{:02x}{after}", first.as_bytes()[0]),
            format!("/{}", rest.to_uppercase()),
            format!("{path}/"),
            format!("{path}//"),
            format!("{path}/."),
            format!("{path};x=1"),
            format!("{path}%00"),
            format!("{path}%2f"),
            format!("{path}?token=1"),
        ];
        for address in spelled {
            for token in [None, Some(buyer.as_str())] {
                let bearer = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
                // As it stands: a client would put it right first.
                let request = format!("GET {address} HTTP/1.1\r\nhost: x\r\n{bearer}connection: close\r\n\r\n");
                let reply = app.client.send_raw(request.as_bytes()).await;
                let status = reply.split(' ').nth(1).unwrap_or_default().to_owned();
                if !["301", "308", "400", "401", "403", "404"].contains(&status.as_str()) {
                    open.push((address.clone(), token.is_some(), status));
                }
            }
        }
    }
    assert!(open.is_empty(), "{open:#?}");
}

/// And administrators have a port of their own.
fn two_ports(config: &mut Config) {
    private_endpoints(config);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    config.server.admin_port = free.local_addr().unwrap().port();
}

/// An endpoint may lie on this machine.
fn private_endpoints(config: &mut Config) {
    config.webhooks.allow_private = true;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_lets_in_whom_it_is_for_and_nobody_else() {
    TestApp::on_both(private_endpoints, ask_everything).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_spelling_of_an_address_opens_a_door() {
    TestApp::on_both(private_endpoints, spell_otherwise).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_merchant_is_at_the_port_of_buyers() {
    TestApp::on_both(two_ports, ask_both_ports).await;
}
