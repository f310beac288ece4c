//! `/orders`.

use actix_web::{HttpResponse, web};
use serde::Deserialize;

use super::products::{page_cursor, page_limit};
use super::{AuthenticatedUser, Params, PathId};
use crate::error::Result;
use crate::model::OrderId;
use crate::services::Orders;

#[derive(Deserialize)]
pub(super) struct ListParams {
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(
    AuthenticatedUser(identity): AuthenticatedUser,
    Params(params): Params<ListParams>,
    orders: web::Data<Orders>,
) -> Result<HttpResponse> {
    let limit = page_limit(params.limit)?;
    let page = orders.list(identity, page_cursor(params.cursor)?, limit).await?;
    Ok(HttpResponse::Ok().json(page))
}

pub(super) async fn get(
    AuthenticatedUser(identity): AuthenticatedUser,
    PathId(id): PathId<OrderId>,
    orders: web::Data<Orders>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(orders.get(identity, id).await?))
}
