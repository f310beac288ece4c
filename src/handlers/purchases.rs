//! `/seckill/{id}`: the purchase.

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpResponse, ResponseError, web};

use super::extract::body::UnreadBody;
use super::extract::{AuthenticatedUser, PathId};
use crate::error::{Error, Result};
use crate::model::{Denial, OrderId, OrderStatus, ProductId};
use crate::services::PurchaseBatcher;

pub(super) async fn buy(
    AuthenticatedUser(identity): AuthenticatedUser,
    PathId(product_id): PathId<ProductId>,
    _: UnreadBody,
    batcher: web::Data<PurchaseBatcher>,
) -> Result<HttpResponse> {
    let order_id = match batcher.buy(identity.user_id, product_id).await {
        Ok(order_id) => order_id,
        // Past the framework's way of errors, which would box this one for the log.
        Err(sold_out @ Error::Denied(Denial::SoldOut)) => return Ok(sold_out.error_response()),
        Err(error) => return Err(error),
    };
    Ok(accepted(order_id, product_id))
}

/// The reply to a purchase. Put together by hand: nothing in it needs escaping, and there are very many of them.
fn accepted(order_id: OrderId, product_id: ProductId) -> HttpResponse {
    let mut buffer = [0; OrderId::LENGTH];
    let (id, product) = (order_id.encode(&mut buffer), product_id.to_string());
    let status = OrderStatus::Queued.as_str();
    let body = [r#"{"order_id":""#, id, r#"","product_id":"#, &product, r#","status":""#, status, r#""}"#].concat();
    let location = Bytes::from(["/orders/", id].concat());
    let location = HeaderValue::from_maybe_shared(location).expect("ids are plain text");
    let json = HeaderValue::from_static("application/json");
    HttpResponse::Accepted()
        .insert_header((header::CONTENT_TYPE, json))
        .insert_header((header::LOCATION, location))
        .body(body)
}
