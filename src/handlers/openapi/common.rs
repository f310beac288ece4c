//! What operations have in common: how they refuse, the headers of every reply, and how one shows who one is.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::ResponseError;
use serde_json::{Map, Value, json};

use super::schemas::{EXAMPLE_ID, EXAMPLE_TIME};
use crate::error::{Error, Limited};
use crate::model::{Denial, OrderStatus};

/// Of an operation: the codes that it refuses with, beside those that all operations of its kind have. Not shown.
const CODES: &str = "x-codes";
/// Of an operation that answers with a stream: the name of its events. Not shown.
const EVENT: &str = "x-event";
/// Tags whose operations are for administrators.
const ADMINISTRATORS: [&str; 2] = ["Merchant", "Webhooks"];
/// The tag of operations that need no store.
const STORELESS: [&str; 2] = ["Operation", "Shop"];

/// Completes each operation.
pub(super) fn complete(api: &mut Value) {
    let (errors, mut shared) = (errors(), Map::new());
    api["components"]["securitySchemes"] = json!({"bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The `access_token` of `/login` or `/register`, or a token of the shop's own directory.",
    }});
    refer_to_items(&mut api["components"]["schemas"]);
    for path in objects(&mut api["paths"]) {
        for operation in objects(path) {
            complete_operation(operation, &errors, &mut shared);
        }
    }
    api["components"]["responses"] = Value::Object(shared);
}

/// A page of a list names what it lists instead of repeating it.
fn refer_to_items(schemas: &mut Value) {
    for (name, schema) in schemas.as_object_mut().into_iter().flatten() {
        if let Some(item) = name.strip_prefix("Page_") {
            schema["properties"]["items"]["items"] = json!({"$ref": format!("#/components/schemas/{item}")});
        }
    }
}

fn objects(parent: &mut Value) -> impl Iterator<Item = &mut Value> {
    parent.as_object_mut().into_iter().flat_map(Map::values_mut).filter(|child| child.is_object())
}

/// `shared`: refusals with one code only, which several operations have.
fn complete_operation(operation: &mut Value, errors: &BTreeMap<&'static str, Error>, shared: &mut Map<String, Value>) {
    let mut refusals: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for code in codes(operation) {
        let error = errors.get(code.as_str()).expect("each code that an operation names is one of an error");
        let example: Value = serde_json::from_slice(&error.problem()).unwrap_or_default();
        refusals.entry(error.status_code().as_u16().to_string()).or_default().insert(code, json!({"value": example}));
    }
    if operation.get("security").is_none() {
        operation["security"] = json!([]);
    }
    // A body that may be left out is an object if it is there.
    let body = operation.pointer_mut("/requestBody/content/application~1json/schema");
    if let Some(schema) = body
        && let Some(object) = schema.pointer("/oneOf/0").cloned()
    {
        *schema = object;
    }
    // A parameter that may be left out is what it is if it is there: there is no `null` in a query or a header.
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(of_two) = parameter["schema"]["type"].as_array() {
            parameter["schema"]["type"] = of_two[0].clone();
        }
    }
    let event = operation.as_object_mut().and_then(|operation| operation.remove(EVENT));
    let replies = &mut operation["responses"];
    if let (Some(name), Some(schema)) = (event, replies.pointer_mut("/200/content/text~1event-stream/schema")) {
        *schema = one_event(&name, schema);
    }
    for reply in objects(replies) {
        reply["headers"]["X-Request-Id"] = request_id();
    }
    for (status, examples) in refusals {
        // `/readyz` says its own way that it is not ready.
        if replies.get(&status).is_none() {
            let only = examples.keys().next().filter(|_| examples.len() == 1);
            replies[&status] = match only {
                Some(code) => {
                    let reference = json!({"$ref": format!("#/components/responses/{code}")});
                    shared.entry(code).or_insert_with(|| refusal(&status, &examples));
                    reference
                }
                None => refusal(&status, &examples),
            };
        }
    }
}

/// What a stream consists of: events named `name` whose data is JSON, and signs of life.
fn one_event(name: &Value, data: &Value) -> Value {
    let event = |name: &Value, data: &Value| {
        json!({
            "type": "object",
            "required": ["event", "data"],
            "properties": {
                "event": {"type": "string", "const": name},
                "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
            },
        })
    };
    let time = json!({"$ref": "#/components/schemas/Timestamp"});
    let alive = json!({"type": "object", "required": ["server_time"], "properties": {"server_time": time}});
    json!({"description": "One event.", "oneOf": [event(name, data), event(&json!("alive"), &alive)]})
}

fn request_id() -> Value {
    json!({
        "description": "Names the request in the log; the caller's own, if it sent a sane one.",
        "schema": {"type": "string"},
    })
}

/// All codes that an operation refuses with.
fn codes(operation: &mut Value) -> Vec<String> {
    let own = operation.as_object_mut().and_then(|operation| operation.remove(CODES)).unwrap_or_default();
    let mut codes: Vec<String> = serde_json::from_value(own).unwrap_or_default();
    let mut add = |applies: bool, code: &str| {
        if applies && !codes.iter().any(|known| known == code) {
            codes.push(code.to_owned());
        }
    };
    let tag = operation["tags"][0].as_str().unwrap_or_default();
    let takes = |what: &str| operation.get(what).is_some();
    let needs_token = takes("security");
    add(needs_token, "unauthorized");
    add(needs_token && ADMINISTRATORS.contains(&tag), "forbidden");
    add(takes("parameters") || takes("requestBody"), "invalid_request");
    add(takes("requestBody"), "payload_too_large");
    add(takes("requestBody"), "unsupported_media_type");
    add(!STORELESS.contains(&tag), "unavailable");
    add(!STORELESS.contains(&tag), "internal");
    codes
}

fn refusal(status: &str, examples: &Map<String, Value>) -> Value {
    let codes: Vec<&String> = examples.keys().collect();
    let quoted: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    let mut headers = match status {
        "401" => json!({"WWW-Authenticate": {"schema": {"type": "string", "const": "Bearer"}}}),
        "429" | "503" => json!({"Retry-After": {
            "description": "Seconds to wait.",
            "schema": {"type": "integer", "minimum": 1},
        }}),
        _ => json!({}),
    };
    if status == "429" {
        headers["RateLimit"] = json!({
            "description": "Which limit it is, that nothing is left of it (`r=0`), and in how many seconds there is again (`t`): RateLimit header fields for HTTP, an IETF draft.",
            "schema": {"type": "string", "pattern": "^\"[a-z-]+\";r=0;t=[0-9]+$"},
            "example": "\"purchases\";r=0;t=1",
        });
    }
    headers["X-Request-Id"] = request_id();
    json!({
        "description": quoted.join(", "),
        "headers": headers,
        "content": {"application/problem+json": {
            "schema": {"allOf": [
                {"$ref": "#/components/schemas/Problem"},
                {"type": "object", "properties": {"code": {"enum": codes}, "status": {"const": status.parse::<u16>().unwrap_or_default()}}},
            ]},
            "examples": examples,
        }},
    })
}

/// One error for each code.
fn errors() -> BTreeMap<&'static str, Error> {
    let (id, time) = (EXAMPLE_ID.parse(), serde_json::from_value(json!(EXAMPLE_TIME)));
    let (id, time) = (id.expect("an id"), time.expect("a time"));
    let wait = Duration::from_secs(1);
    let errors = [
        Error::Invalid("quantity: must be 1 to 10".to_owned()),
        Error::Unauthorized,
        Error::InvalidCredentials,
        Error::Forbidden,
        Error::NotFound,
        Error::ProductNotFound,
        Error::OrderNotFound,
        Error::PaymentNotFound,
        Error::DeadLetterNotFound,
        Error::WebhookNotFound,
        Error::DeliveryNotFound,
        Error::TooManyWebhooks(100),
        Error::InvalidSignature("The signature is not this provider's."),
        Error::PaymentsOff,
        Error::UsernameTaken,
        Error::IdempotencyConflict,
        Error::StockBelowSold { least: 40 },
        Error::PreconditionFailed { revision: 4 },
        Error::StillLive,
        Error::Draft,
        Error::Published,
        Error::Archived,
        Error::NotCancellable(OrderStatus::Expired),
        Error::NotPayable(OrderStatus::Expired),
        Error::Denied(Denial::NotStarted(time)),
        Error::Denied(Denial::Ended),
        Error::Denied(Denial::Paused),
        Error::Denied(Denial::AlreadyPurchased(id)),
        Error::Denied(Denial::SoldOut),
        Error::Denied(Denial::NotEnoughLeft(1)),
        Error::Denied(Denial::AddressLimit(1)),
        Error::PayloadTooLarge,
        Error::UnsupportedMediaType,
        Error::RateLimited(Limited::LogIns, wait),
        Error::Unavailable(String::new()),
        Error::Internal(String::new()),
    ];
    errors.into_iter().map(|error| (error.code(), error)).collect()
}
