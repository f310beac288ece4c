//! `/seckill/{id}`: the purchase.

use actix_web::http::header;
use actix_web::{HttpResponse, ResponseError, web};
use serde::Serialize;

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

pub(super) async fn buy(
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
