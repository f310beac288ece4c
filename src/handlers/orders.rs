//! `/orders`, and what administrators do to them.

use actix_web::{HttpResponse, web};
use serde::Deserialize;

use super::extract::body::{Body, OptionalBody};
use super::extract::{Admin, AuthenticatedUser, Params, PathId};
use super::products::{page_cursor, page_limit};
use super::state::AppState;
use crate::error::Result;
use crate::model::OrderId;
use crate::services::{Cancellation, MarkPaid};

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

/// A body that says nothing.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

pub(super) async fn cancel(
    AuthenticatedUser(identity): AuthenticatedUser,
    PathId(id): PathId<OrderId>,
    _: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.order_changes.cancel(identity, id).await?))
}

pub(super) async fn cancel_as_admin(
    Admin(admin): Admin,
    PathId(id): PathId<OrderId>,
    OptionalBody(request): OptionalBody<Cancellation>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.order_changes.cancel_as_admin(admin, id, request).await?))
}

pub(super) async fn mark_paid(
    Admin(admin): Admin,
    PathId(id): PathId<OrderId>,
    Body(request): Body<MarkPaid>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.order_changes.mark_paid(admin, id, request).await?))
}

pub(super) async fn history(
    Admin(admin): Admin,
    PathId(id): PathId<OrderId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.order_changes.history(admin, id).await?))
}
