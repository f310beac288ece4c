//! A server that behaves as Stripe's documentation says of Checkout Sessions, refunds, idempotency keys and errors; and that fails
//! where a test wants it to. It cannot show that Stripe does so.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ring::hmac;
use seckill::config::{Config, Provider};
use seckill::model::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::app::TestApp;
use crate::client::Reply;

pub const ENDPOINT_SECRET: &str = "whsec_of_the_endpoint";
const SECRET_KEY: &str = "sk_test_of_the_account";

/// What goes wrong with the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Too many requests: nothing is done.
    Busy,
    /// It is done, and nobody is told.
    HangsUp,
    /// It is done, and the answer is 500, now and for ever.
    FailsAfterwards,
    /// It is not done, and the answer is 500, now and for ever.
    FailsBefore,
    /// Another request of the same key is under way.
    KeyInUse,
    /// The key of the account is not known.
    Unauthorized,
    /// The refund takes days.
    Pending,
    /// The bank does not take the money.
    Refused,
}

#[derive(Default)]
struct State {
    sessions: HashMap<String, Value>,
    refunds: Vec<Value>,
    /// By idempotency key: what was asked for, and the answer.
    answers: HashMap<String, (String, u16, Value)>,
    faults: VecDeque<Fault>,
    refund_fault: Option<Fault>,
    /// Method and path of each.
    requests: Vec<String>,
}

pub struct FakeStripe {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FakeStripe {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(State::default())));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, shared.clone()));
            }
        });
        Self { address, state }
    }

    /// Makes it the provider.
    pub fn configure(&self) -> impl FnOnce(&mut Config) + use<> {
        let base = format!("http://{}", self.address);
        move |config: &mut Config| {
            config.payments.provider = Provider::Stripe;
            config.payments.stripe.secret_key = SECRET_KEY.into();
            config.payments.stripe.webhook_secret = ENDPOINT_SECRET.into();
            config.payments.stripe.api_base = base;
            config.payments.stripe.return_url = "https://shop.example/orders/{order_id}".to_owned();
        }
    }

    /// The next refund that is asked for fails so.
    pub fn fail_refund(&self, fault: Fault) {
        self.state.lock().unwrap().refund_fault = Some(fault);
    }

    /// The next requests fail so, one after the other.
    pub fn fail(&self, faults: &[Fault]) {
        self.state.lock().unwrap().faults = faults.iter().copied().collect();
    }

    pub fn sessions(&self) -> Vec<Value> {
        self.state.lock().unwrap().sessions.values().cloned().collect()
    }

    pub fn refunds(&self) -> Vec<Value> {
        self.state.lock().unwrap().refunds.clone()
    }

    /// How many requests there were that begin so.
    pub fn requests(&self, beginning: &str) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|request| request.starts_with(beginning)).count()
    }

    /// A buyer pays at an address. What Stripe would tell of it.
    pub fn pay(&self, url: &str) -> Value {
        let mut state = self.state.lock().unwrap();
        let session = state.sessions.values_mut().find(|session| session["url"] == url).expect("a checkout there");
        assert_eq!(session["status"], "open", "nobody can pay there any more");
        let intent = format!("pi_{}", uuid::Uuid::new_v4().simple());
        for (field, value) in [("status", "complete"), ("payment_status", "paid"), ("payment_intent", &intent)] {
            session[field] = value.into();
        }
        session["url"] = Value::Null;
        event("checkout.session.completed", session)
    }

    /// All of it was given back, as Stripe would tell.
    pub fn charge_refunded(&self, session: &Value) -> Value {
        let metadata = json!({"payment_id": session["metadata"]["payment_id"]});
        let intent = &session["payment_intent"];
        event(
            "charge.refunded",
            &json!({"id": "ch_1", "refunded": true, "payment_intent": intent, "metadata": metadata}),
        )
    }
}

/// What Stripe tells.
pub fn event(kind: &str, object: &Value) -> Value {
    json!({"id": format!("evt_{}", uuid::Uuid::new_v4().simple()), "object": "event", "api_version": "2024-06-20",
        "type": kind, "livemode": false, "data": {"object": object}})
}

/// `Stripe-Signature`, by other code than ours.
pub fn signature(secret: &str, time: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{time}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={time},v1={hex},v0=ffff")
}

/// Sends an event as Stripe does.
pub async fn tell(app: &TestApp, event: &Value) -> Reply {
    let (body, now) = (event.to_string(), Timestamp::now().unix_ms() / 1000);
    tell_signed(app, &signature(ENDPOINT_SECRET, now, &body), body).await
}

pub async fn tell_signed(app: &TestApp, signature: &str, body: String) -> Reply {
    let request = app.client.request(reqwest::Method::POST, "/payments/webhooks/stripe");
    let request =
        request.header("stripe-signature", signature).header("content-type", "application/json; charset=utf-8");
    app.client.send(request.body(body)).await
}

struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    form: HashMap<String, String>,
    body: String,
}

async fn serve(mut connection: TcpStream, state: Arc<Mutex<State>>) {
    let mut bytes = Vec::new();
    while let Some(request) = next_request(&mut connection, &mut bytes).await {
        let answer = state.lock().unwrap().answer(&request);
        let Some((status, body)) = answer else { return };
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nRetry-After: 1\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if connection.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn next_request(connection: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        read_more(connection, bytes).await?;
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let (method, rest) = lines.next()?.split_once(' ')?;
    let path = rest.split(' ').next()?.to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + length {
        read_more(connection, bytes).await?;
    }
    let body = String::from_utf8(bytes[end..end + length].to_vec()).unwrap();
    bytes.drain(..end + length);
    let form = serde_urlencoded::from_str(&body).unwrap();
    Some(Request { method: method.to_owned(), path, headers, form, body })
}

async fn read_more(connection: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 4096];
    let read = connection.read(&mut part).await.ok().filter(|read| *read > 0)?;
    bytes.extend_from_slice(&part[..read]);
    Some(())
}

fn error(kind: &str, code: &str) -> Value {
    json!({"error": {"type": kind, "code": code, "message": format!("says the server of the tests: {code}")}})
}

impl State {
    /// `None`: it hangs up.
    fn answer(&mut self, request: &Request) -> Option<(u16, Value)> {
        self.requests.push(format!("{} {}", request.method, request.path));
        let login = format!("Basic {}", base64_of(&format!("{SECRET_KEY}:")));
        let is_refund = (request.method.as_str(), request.path.as_str()) == ("POST", "/v1/refunds");
        let fault = if is_refund { self.refund_fault.take() } else { None }.or_else(|| self.faults.pop_front());
        if request.headers.get("authorization") != Some(&login) || fault == Some(Fault::Unauthorized) {
            return Some((401, error("invalid_request_error", "")));
        }
        assert_eq!(request.headers["stripe-version"], "2024-06-20");
        if fault == Some(Fault::Busy) {
            return Some((429, error("invalid_request_error", "rate_limit")));
        }
        if request.method == "GET" {
            return Some(self.read(&request.path));
        }
        let key = request.headers.get("idempotency-key").expect("each POST has a key").clone();
        if fault == Some(Fault::KeyInUse) {
            return Some((409, error("idempotency_error", "idempotency_key_in_use")));
        }
        let asked = format!("{} {}", request.path, request.body);
        if let Some((before, status, body)) = self.answers.get(&key) {
            return Some(match *before == asked {
                true => (*status, body.clone()),
                false => (400, error("idempotency_error", "")),
            });
        }
        if fault == Some(Fault::FailsBefore) {
            self.answers.insert(key, (asked, 500, error("api_error", "")));
            return Some((500, error("api_error", "")));
        }
        // What is refused before it begins is not kept.
        let (status, body) = match self.act(request, fault) {
            Ok(body) => (200, body),
            Err(refused) => return Some((400, refused)),
        };
        let kept = if fault == Some(Fault::FailsAfterwards) { (500, error("api_error", "")) } else { (status, body) };
        self.answers.insert(key, (asked, kept.0, kept.1.clone()));
        (fault != Some(Fault::HangsUp)).then_some(kept)
    }

    fn read(&self, path: &str) -> (u16, Value) {
        if let Some(id) = path.strip_prefix("/v1/checkout/sessions/") {
            let session = self.sessions.get(id).cloned();
            return session.map_or((404, error("invalid_request_error", "resource_missing")), |session| (200, session));
        }
        let intent =
            path.strip_prefix("/v1/refunds?payment_intent=").and_then(|rest| rest.split('&').next()).expect(path);
        let of_it: Vec<&Value> = self.refunds.iter().filter(|refund| refund["payment_intent"] == intent).collect();
        (200, json!({"object": "list", "data": of_it, "has_more": false}))
    }

    fn act(&mut self, request: &Request, fault: Option<Fault>) -> Result<Value, Value> {
        match request.path.as_str() {
            "/v1/checkout/sessions" => self.open(&request.form),
            "/v1/refunds" => self.refund(&request.form, fault),
            path => {
                let id = path
                    .strip_prefix("/v1/checkout/sessions/")
                    .and_then(|rest| rest.strip_suffix("/expire"))
                    .expect(path);
                let session = self.sessions.get_mut(id).ok_or(error("invalid_request_error", "resource_missing"))?;
                if session["status"] != "open" {
                    return Err(error("invalid_request_error", ""));
                }
                session["status"] = "expired".into();
                session["url"] = Value::Null;
                Ok(session.clone())
            }
        }
    }

    fn open(&mut self, form: &HashMap<String, String>) -> Result<Value, Value> {
        let number = |name: &str| form[name].parse::<i64>().unwrap();
        let now = Timestamp::now().unix_ms() / 1000;
        let ends = form.get("expires_at").map(|ends| ends.parse::<i64>().unwrap());
        if ends.is_some_and(|ends| !(now + 1800..=now + 86_400).contains(&ends)) {
            return Err(error("invalid_request_error", "parameter_invalid"));
        }
        let amount = number("line_items[0][quantity]") * number("line_items[0][price_data][unit_amount]");
        if amount < 50 {
            return Err(error("invalid_request_error", "amount_too_small"));
        }
        assert_eq!(form["mode"], "payment");
        assert_eq!(form["payment_intent_data[metadata][payment_id]"], form["metadata[payment_id]"]);
        let id = format!("cs_test_{}", uuid::Uuid::new_v4().simple());
        let session = json!({
            "id": id, "object": "checkout.session", "status": "open", "payment_status": "unpaid", "payment_intent": null,
            "url": format!("https://checkout.stripe.example/c/pay/{id}"), "amount_total": amount,
            "currency": form["line_items[0][price_data][currency]"], "expires_at": ends.unwrap_or(now + 86_400),
            "metadata": {"payment_id": form["metadata[payment_id]"], "order_id": form["metadata[order_id]"]},
            "success_url": form["success_url"], "name": form["line_items[0][price_data][product_data][name]"],
        });
        self.sessions.insert(id, session.clone());
        Ok(session)
    }

    fn refund(&mut self, form: &HashMap<String, String>, fault: Option<Fault>) -> Result<Value, Value> {
        let intent = &form["payment_intent"];
        let is_of_it = |refund: &&Value| refund["payment_intent"] == **intent && refund["status"] != "failed";
        if self.refunds.iter().find(is_of_it).is_some() {
            return Err(error("invalid_request_error", "charge_already_refunded"));
        }
        let status = match fault {
            Some(Fault::Pending) => "pending",
            Some(Fault::Refused) => "failed",
            _ => "succeeded",
        };
        let refund = json!({
            "id": format!("re_{}", uuid::Uuid::new_v4().simple()), "object": "refund", "status": status,
            "payment_intent": intent, "metadata": {"payment_id": form["metadata[payment_id]"]},
            "failure_reason": (status == "failed").then_some("expired_or_canceled_card"),
        });
        self.refunds.push(refund.clone());
        Ok(refund)
    }
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
