//! Holds every reply of every test against the OpenAPI document: its status, the code of a refusal, and its body.

use std::sync::LazyLock;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Reply;

/// What the document says of one reply.
struct Described {
    /// The path, piece by piece; a piece in braces is any.
    pattern: Vec<String>,
    method: String,
    status: String,
    /// Of its body as JSON, if there is any.
    schema: Option<jsonschema::Validator>,
    headers: Vec<String>,
}

static DESCRIBED: LazyLock<Vec<Described>> = LazyLock::new(|| {
    let document: Value = serde_json::from_str(&seckill::handlers::openapi()).unwrap();
    let mut described = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for (status, reply) in operation["responses"].as_object().unwrap() {
                let shared = reply["$ref"].as_str().map(|name| document.pointer(&name[1..]).unwrap());
                let reply = shared.unwrap_or(reply);
                let content = reply["content"].as_object();
                let of_json = content.and_then(|content| content.iter().find(|(name, _)| name.ends_with("json")));
                let schema = of_json.map(|(_, content)| {
                    let mut schema = content["schema"].clone();
                    schema["components"] = document["components"].clone();
                    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
                });
                described.push(Described {
                    pattern: path.split('/').map(str::to_owned).collect(),
                    method: method.to_uppercase(),
                    status: status.clone(),
                    schema,
                    headers: reply["headers"].as_object().into_iter().flat_map(|all| all.keys().cloned()).collect(),
                });
            }
        }
    }
    described
});

/// What no operation says of itself, for any can refuse so: no such path or method, too much at once, a body that nobody asked for.
fn is_said_by_all(reply: &Reply) -> bool {
    let code = reply.body["code"].as_str().unwrap_or_default();
    matches!((reply.status, code), (204, "") | (404, "not_found") | (405, "method_not_allowed"))
}

fn is_page(path: &str) -> bool {
    let first = path.split('/').nth(1).unwrap_or_default();
    matches!(first, "" | "shop" | "console" | "docs" | "assets" | "pay")
}

#[track_caller]
pub fn check(method: &Method, path: &str, reply: &Reply) {
    if is_said_by_all(reply) && (*method == Method::OPTIONS || reply.status != 204) {
        return;
    }
    let is_head = *method == Method::HEAD;
    let method = if is_head { Method::GET } else { method.clone() };
    let pieces: Vec<&str> = path.split('/').collect();
    let fits = |described: &&Described| {
        let pattern = &described.pattern;
        described.method == method.as_str()
            && pattern.len() == pieces.len()
            && pattern.iter().zip(&pieces).all(|(pattern, piece)| pattern.starts_with('{') || pattern == piece)
    };
    let of_path: Vec<&Described> = DESCRIBED.iter().filter(fits).collect();
    // Of two that fit, the one that is spelled out.
    let spelled = |described: &&&Described| described.pattern.iter().filter(|piece| !piece.starts_with('{')).count();
    let most = of_path.iter().map(|described| spelled(&described)).max();
    let found = of_path
        .iter()
        .find(|described| Some(spelled(described)) == most && described.status == reply.status.to_string());
    let Some(described) = found else {
        // Pages are no part of the API; every other path is described, as a test of the routes says.
        if of_path.is_empty() && is_page(path) {
            return;
        }
        panic!("{method} {path}: the OpenAPI document does not say that it answers {}: {reply:?}", reply.status);
    };
    for name in &described.headers {
        assert!(reply.headers.contains_key(name), "{method} {path} {}: no {name}: {reply:?}", reply.status);
    }
    if let Some(schema) = described.schema.as_ref().filter(|_| !is_head) {
        let problems: Vec<String> =
            schema.iter_errors(&reply.body).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(problems.is_empty(), "{method} {path} {}: {problems:#?}\n{}", reply.status, json!(reply.body));
    }
}
