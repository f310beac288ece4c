//! `/seckill/{id}`: the purchase.

use actix_web::guard::GuardContext;
use actix_web::http::{Method, header};
use actix_web::{HttpResponse, ResponseError, Scope, guard, web};
use serde::Serialize;

use super::request_id::Route;
use super::{Caller, PathId, UnreadBody};
use crate::error::{Error, Result};
use crate::model::{OrderId, OrderStatus, ProductId};
use crate::services::Lane;

#[derive(Serialize)]
struct Accepted {
    order_id: OrderId,
    product_id: ProductId,
    status: OrderStatus,
}

/// `POST /seckill/{id}`.
pub(super) fn scope() -> Scope {
    web::scope("/seckill")
        .guard(guard::fn_guard(is_purchase))
        .app_data(Route("/seckill/{id}"))
        .default_service(web::to(buy))
}

fn is_purchase(request: &GuardContext<'_>) -> bool {
    let id = request.head().uri.path().strip_prefix("/seckill/");
    request.head().method == Method::POST && id.is_some_and(|id| !id.is_empty() && !id.contains('/'))
}

async fn buy(
    Caller(identity): Caller,
    PathId(product_id): PathId<ProductId>,
    _: UnreadBody,
    lane: web::Data<Lane>,
) -> Result<HttpResponse> {
    let order_id = match lane.buy(identity.user_id, product_id).await {
        Ok(order_id) => order_id,
        // Without the detour by which a framework keeps an error for the log.
        Err(refusal @ Error::SoldOut) => return Ok(refusal.error_response()),
        Err(error) => return Err(error),
    };
    let location = format!("/orders/{order_id}");
    let accepted = Accepted { order_id, product_id, status: OrderStatus::Queued };
    Ok(HttpResponse::Accepted().insert_header((header::LOCATION, location)).json(accepted))
}
