//! `/admin/webhooks`: where the shop is told what happens.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use super::extract::body::{Body, UnreadBody};
use super::extract::{Admin, Params, PathId};
use super::products::{PageParams, page_cursor, page_limit};
use super::state::AppState;
use crate::error::{Error, Result};
use crate::model::{DeliveryId, DeliveryStatus, EndpointId};
use crate::services::{CreateEndpoint, PatchEndpoint};

#[derive(Deserialize)]
pub(super) struct DeliveryParams {
    status: Option<DeliveryStatus>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn create(
    Admin(admin): Admin,
    Body(request): Body<CreateEndpoint>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let endpoint = state.webhooks.create(admin, request).await?;
    let location = format!("/admin/webhooks/{}", endpoint.id);
    Ok(HttpResponse::Created().insert_header((header::LOCATION, location)).json(endpoint))
}

pub(super) async fn list(
    _: Admin,
    Params(params): Params<PageParams>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let limit = page_limit(params.limit)?;
    Ok(HttpResponse::Ok().json(state.webhooks.list(page_cursor(params.cursor)?, limit).await?))
}

pub(super) async fn get(_: Admin, PathId(id): PathId<EndpointId>, state: web::Data<AppState>) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.webhooks.get(id).await?))
}

pub(super) async fn patch(
    Admin(admin): Admin,
    PathId(id): PathId<EndpointId>,
    Body(request): Body<PatchEndpoint>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.webhooks.patch(admin, id, request).await?))
}

pub(super) async fn delete(
    Admin(admin): Admin,
    PathId(id): PathId<EndpointId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    state.webhooks.delete(admin, id).await?;
    Ok(HttpResponse::NoContent().finish())
}

pub(super) async fn test(
    _: Admin,
    PathId(id): PathId<EndpointId>,
    _: UnreadBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Accepted().json(state.webhooks.test(id).await?))
}

pub(super) async fn rotate_secret(
    Admin(admin): Admin,
    PathId(id): PathId<EndpointId>,
    _: UnreadBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.webhooks.rotate_secret(admin, id).await?))
}

pub(super) async fn deliveries(
    _: Admin,
    PathId(id): PathId<EndpointId>,
    Params(params): Params<DeliveryParams>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let limit = page_limit(params.limit)?;
    let page = state.webhooks.deliveries(id, params.status, page_cursor(params.cursor)?, limit).await?;
    Ok(HttpResponse::Ok().json(page))
}

pub(super) async fn retry(
    _: Admin,
    PathId(id): PathId<EndpointId>,
    request: HttpRequest,
    _: UnreadBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let delivery: &str = request.match_info().get("delivery").unwrap_or_default();
    let delivery: DeliveryId = delivery.parse().map_err(|problem| Error::Invalid(format!("delivery_id: {problem}")))?;
    Ok(HttpResponse::Accepted().json(state.webhooks.retry(id, delivery).await?))
}
