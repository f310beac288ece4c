//! `/events`, `/orders/{id}/events`: live events as `text/event-stream`.

use std::collections::BTreeSet;

use actix_web::http::{Method, header};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{AuthenticatedUser, Params, PathId};
use super::state::AppState;
use crate::error::{Error, Result};
use crate::model::{OrderId, ProductId};
use crate::services::{OrderView, TimedProductEvent};

/// Products that one may listen to at a time: a page of a list.
const MAX_PRODUCTS: usize = 20;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventParams {
    /// Ids, separated by commas, 20 at most. Those that no product has are left out; there must be one that is a product.
    #[param(pattern = "^[1-9][0-9]{0,14}(,[1-9][0-9]{0,14}){0,19}$", example = "1,2")]
    products: String,
}

/// What is left of products, at once and then at each change, at most five times a second: `event: product` with a `ProductEvent` as data. Each event is the whole truth. Every 15 s a comment and an `alive` event.
#[utoipa::path(
    get,
    path = "/events",
    operation_id = "listen_to_products",
    tag = "Live events",
    params(EventParams),
    responses(
        (status = 200, description = "A stream without an end.", body = TimedProductEvent<'static>, content_type = "text/event-stream"),
    ),
    extensions(("x-codes" = json!(["product_not_found"])), ("x-event" = json!("product"))),
)]
pub(super) async fn of_products(
    Params(params): Params<EventParams>,
    request: HttpRequest,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let invalid = |problem: String| Error::Invalid(format!("products: {problem}"));
    let ids = params.products.split(',').map(|id| id.trim().parse::<ProductId>());
    let ids: BTreeSet<ProductId> =
        ids.collect::<std::result::Result<_, _>>().map_err(|problem| invalid(problem.into()))?;
    if ids.len() > MAX_PRODUCTS {
        return Err(invalid(format!("at most {MAX_PRODUCTS}, separated by commas")));
    }
    let ids: Vec<ProductId> = ids.into_iter().collect();
    let listener = state.product_events.listen(&ids).await?;
    Ok(reply(&request, listener))
}

/// What becomes of an order, at once and then at each change: `event: order` with an `Order` as data. It ends after five minutes: a token is shown again then.
#[utoipa::path(
    get,
    path = "/orders/{id}/events",
    operation_id = "listen_to_order",
    tag = "Live events",
    params(PathId<OrderId>),
    responses(
        (status = 200, description = "A stream that ends after five minutes.", body = OrderView, content_type = "text/event-stream"),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["order_not_found", "rate_limited"])), ("x-event" = json!("order"))),
)]
pub(super) async fn of_order(
    AuthenticatedUser(identity): AuthenticatedUser,
    PathId(id): PathId<OrderId>,
    request: HttpRequest,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let listener = state.order_events.listen(identity, id).await?;
    Ok(reply(&request, listener))
}

/// Proxies are told not to keep what is sent until there is more.
fn reply(request: &HttpRequest, pieces: impl Stream<Item = Bytes> + 'static) -> HttpResponse {
    let mut reply = HttpResponse::Ok();
    reply.content_type("text/event-stream");
    reply.insert_header((header::CACHE_CONTROL, "no-cache, no-transform"));
    reply.insert_header(("X-Accel-Buffering", "no"));
    if request.method() == Method::HEAD {
        return reply.finish();
    }
    reply.streaming(pieces.map(Ok::<_, Error>))
}
