//! `/orders`.

use actix_web::{HttpResponse, web};
use serde::Deserialize;

use super::extract::{AuthenticatedUser, Params, PathId};
use super::products::{page_cursor, page_limit};
use super::state::AppState;
use crate::error::Result;
use crate::model::OrderId;

#[derive(Deserialize)]
pub(super) struct ListParams {
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(
    AuthenticatedUser(identity): AuthenticatedUser,
    Params(params): Params<ListParams>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let limit = page_limit(params.limit)?;
    let page = state.orders.list(identity, page_cursor(params.cursor)?, limit).await?;
    Ok(HttpResponse::Ok().json(page))
}

pub(super) async fn get(
    AuthenticatedUser(identity): AuthenticatedUser,
    PathId(id): PathId<OrderId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.orders.get(identity, id).await?))
}
