//! `/seckill/{id}`: the purchase.

use std::fmt::Write;
use std::time::Duration;

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpResponse, ResponseError, web};
use serde::Deserialize;
use utoipa::ToSchema;

use super::extract::body::OptionalBody;
use super::extract::{AuthenticatedUser, Origin, PathId};
use super::middleware::traces::{InTrace, Outcome};
use crate::error::{Error, Result};
use crate::model::{Denial, OrderId, OrderStatus, ProductId, Quantity, Timestamp};
use crate::services::{Accepted, PurchaseBatcher};
use crate::telemetry::LogThrottle;

/// Lines about buyers who may share an address because of the configuration.
static UNNAMED_PROXY: LogThrottle = LogThrottle::new(Duration::from_secs(60));

/// Asks for units of a product, one unless the body says more. Granted whole or refused.
///
/// A 202 is a promise: whatever breaks from then on, it ends as exactly one order. Who lost the answer asks again: `already_purchased` names the order.
#[utoipa::path(
    post,
    path = "/seckill/{id}",
    operation_id = "buy",
    tag = "Purchases",
    params(PathId<ProductId>),
    request_body = Option<Buy>,
    responses(
        (status = 202, description = "Promised; the order is written a moment later.", body = AcceptedPurchase, headers(("Location" = String, description = "Path of what was made.")),
            links(
                ("order" = (operation_id = "get_order", parameters(("id" = "$response.body#/order_id")))),
                ("pay" = (operation_id = "start_payment", parameters(("id" = "$response.body#/order_id")))),
                ("cancel" = (operation_id = "cancel_order", parameters(("id" = "$response.body#/order_id")))),
            )),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["product_not_found", "not_started", "ended", "paused", "already_purchased", "sold_out", "not_enough_left", "address_limit", "rate_limited"]))),
)]
pub(super) async fn buy(
    AuthenticatedUser(identity): AuthenticatedUser,
    PathId(product_id): PathId<ProductId>,
    OptionalBody(Buy { quantity }): OptionalBody<Buy>,
    origin: Origin,
    InTrace(trace): InTrace,
    batcher: web::Data<PurchaseBatcher>,
) -> Result<HttpResponse> {
    let is_traced = trace.is_some();
    let (mut reply, outcome) = match batcher.buy(identity.user_id, product_id, quantity, origin.network, trace).await {
        Ok(promised) => (accepted(promised, product_id), Outcome::Accepted(promised.order_id)),
        // The most frequent answer of all, so it is a reply and not an error: the framework allocates for each error.
        Err(sold_out @ Error::Denied(Denial::SoldOut)) => {
            (sold_out.error_response(), Outcome::Refused(sold_out.code()))
        }
        Err(error) => {
            if let Error::Denied(Denial::AddressLimit(_)) = error {
                warn_of_unnamed_proxy(&origin, product_id);
            }
            return Err(error);
        }
    };
    if is_traced {
        reply.extensions_mut().insert(outcome);
    }
    Ok(reply)
}

/// A buyer was refused for their address. If that is the address of a proxy which `server.trusted_proxies` does not name, all its
/// buyers are refused, and nothing else tells the operator why.
fn warn_of_unnamed_proxy(origin: &Origin, product: ProductId) {
    if let Some(peer) = origin.unnamed_proxy
        && let Some(untold) = UNNAMED_PROXY.now()
    {
        tracing::warn!(
            product.id = %product, %peer, untold,
            "A click was refused for its address, and a proxy may have sent it that is not in server.trusted_proxies: all its buyers \
             then share one address"
        );
    }
}

/// Body of `POST /seckill/{id}`: none, or how many units.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PurchaseRequest)]
pub(super) struct Buy {
    #[serde(default)]
    quantity: Quantity,
}

/// What a promise is answered with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "`accepted` writes it by hand")]
pub(super) struct AcceptedPurchase {
    order_id: OrderId,
    product_id: ProductId,
    /// `queued`.
    status: OrderStatus,
    quantity: Quantity,
    /// What all units cost, in minor units.
    total_cents: Option<i64>,
    /// When it must be paid; `null`: it need not be.
    expires_at: Option<Timestamp>,
}

/// The reply to a purchase. Put together by hand: nothing in it needs escaping, and there are very many of them.
fn accepted(Accepted { order_id, quantity, terms }: Accepted, product_id: ProductId) -> HttpResponse {
    let mut buffer = [0; OrderId::LENGTH];
    let id = order_id.encode(&mut buffer);
    let status = OrderStatus::Queued.as_str();
    let mut body = String::with_capacity(200);
    let _ = write!(body, r#"{{"order_id":"{id}","product_id":{product_id},"status":"{status}","quantity":{quantity}"#);
    if let Some(terms) = terms {
        let _ = write!(body, r#","total_cents":{},"expires_at":"#, terms.total_cents(quantity));
        let _ = match terms.expires_at(order_id) {
            Some(at) => write!(body, r#""{at}""#),
            None => write!(body, "null"),
        };
    }
    body.push('}');
    let location = Bytes::from(["/orders/", id].concat());
    let location = HeaderValue::from_maybe_shared(location).expect("ids are plain text");
    let json = HeaderValue::from_static("application/json");
    HttpResponse::Accepted()
        .insert_header((header::CONTENT_TYPE, json))
        .insert_header((header::LOCATION, location))
        .body(body)
}
