//! The whole API as an OpenAPI 3.1 document: put together from the annotations of the handlers and of the types that they take and
//! give, and completed by what all of them have in common.

mod common;
mod pages;
mod schemas;

use std::sync::{Arc, LazyLock};

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use sha2::{Digest, Sha256};
use utoipa::OpenApi;

pub(super) use self::pages::{front_page, page_file};
pub(super) use self::schemas::{Callback, CallbackHeaders, Conditional, ForRevision, Idempotent};
use super::problem::Problem;
use super::rendered::rendered;
use super::{accounts, events, health, merchant, orders, payments, products, purchases, shop, webhooks};
use crate::services::RenderedPage;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "seckill",
        description = "A flash sale: a limited stock, exactly once each, in the order the buyers came.\n\n\
            JSON in and out, UTF-8. Times are RFC 3339, UTC. Money is a whole number of minor units: 1990 is 19.90 USD, or 1990 JPY. \
            Errors are problem documents (RFC 9457) whose `code` is stable; every reply has `X-Request-Id`. Whatever answers GET answers \
            HEAD. A body is at most 64 KiB, as it is or compressed by gzip; a field that is not known in it is an error."
    ),
    servers((url = "/")),
    tags(
        (name = "Purchases", description = "The click."),
        (name = "Products", description = "What is sold, and when."),
        (name = "Orders", description = "What became of a click."),
        (name = "Payments", description = "How an order is paid."),
        (name = "Live events", description = "Server-sent events."),
        (name = "Accounts", description = "Buyers and administrators."),
        (name = "Shop", description = "What pages ask for first."),
        (name = "Merchant", description = "For administrators: sales, orders, dead letters."),
        (name = "Webhooks", description = "For administrators: where the shop is told what happens."),
        (name = "Operation", description = "For those who run it."),
    ),
    paths(
        purchases::buy,
        products::list,
        products::list_all,
        products::get_any,
        products::get,
        products::create,
        products::patch,
        products::restock,
        products::archive,
        products::audit,
        products::log,
        orders::list,
        orders::get,
        orders::cancel,
        orders::cancel_as_admin,
        orders::mark_paid,
        orders::history,
        payments::start,
        payments::of_order,
        payments::get,
        payments::callback,
        events::of_products,
        events::of_order,
        accounts::register,
        accounts::log_in,
        accounts::log_out,
        accounts::me,
        accounts::change_password,
        shop::time,
        shop::settings,
        merchant::summary,
        merchant::orders,
        merchant::export,
        merchant::live,
        merchant::check,
        merchant::dead_letters,
        merchant::replay,
        merchant::delete_dead_letter,
        webhooks::create,
        webhooks::list,
        webhooks::get,
        webhooks::patch,
        webhooks::delete,
        webhooks::test,
        webhooks::rotate_secret,
        webhooks::deliveries,
        webhooks::retry,
        health::alive,
        health::ready,
        health::metrics,
        document,
    ),
    components(schemas(Problem)),
)]
struct Api;

/// The document as it was rendered when it was last committed: a test compares it with what the code says.
static DOCUMENT: LazyLock<RenderedPage> = LazyLock::new(|| {
    let json = include_bytes!("../../../docs/openapi.json");
    let tag = Sha256::digest(json).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    RenderedPage { json: Bytes::from_static(json), tag, gzip: Arc::default() }
});

/// The document as text, which ends with a line's end.
pub fn render() -> String {
    let mut api = serde_json::to_value(Api::openapi()).unwrap_or_default();
    common::complete(&mut api);
    format!("{api:#}\n")
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "get_openapi",
    tag = "Operation",
    params(Conditional),
    responses(
        (status = 200, description = "The whole API as OpenAPI 3.1.", body = Object),
        (status = 304, description = "The client has this version."),
    ),
)]
pub(super) async fn document(request: HttpRequest) -> HttpResponse {
    rendered(&request, DOCUMENT.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn whatever_the_document_refers_to_is_in_it() {
        let document: Value = serde_json::from_str(&super::render()).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100, "{}", found.len());
        found.retain(|reference| document.pointer(reference.trim_start_matches('#')).is_none());
        assert!(found.is_empty(), "{found:?}");
    }
}
