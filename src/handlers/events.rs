//! `/events`, `/orders/{id}/events`: live events as `text/event-stream`.

use std::collections::BTreeSet;

use actix_web::http::{Method, header};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;

use super::extract::{AuthenticatedUser, Params, PathId};
use super::state::AppState;
use crate::error::{Error, Result};
use crate::model::{OrderId, ProductId};

/// Products that one may listen to at a time: a page of a list.
const MAX_PRODUCTS: usize = 20;

#[derive(Deserialize)]
pub(super) struct EventParams {
    products: String,
}

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
