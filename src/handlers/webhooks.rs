//! `/admin/webhooks`: where the shop is told what happens.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::body::{Body, UnreadBody};
use super::extract::{Admin, Params, PathId, without_condition};
use super::lists::{PageParams, page_cursor, page_limit};
use super::state::AppState;
use crate::error::{Error, Result};
use crate::model::{DeliveryId, DeliveryStatus, EndpointId};
use crate::services::{CreateEndpoint, DeliveryView, EndpointView, Page, PatchEndpoint};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveryParams {
    status: Option<DeliveryStatus>,
    /// Entries of a page: 1 to 100, 20 unless asked otherwise.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// The `next_cursor` of a page before.
    #[param(pattern = "^[1-9][0-9]{0,14}$")]
    cursor: Option<String>,
}

/// Registers an endpoint that is told what happens. Its secret is shown this once.
#[utoipa::path(
    post,
    path = "/admin/webhooks",
    operation_id = "create_webhook",
    tag = "Webhooks",
    request_body = CreateEndpoint,
    responses(
        (status = 201, description = "Registered.", body = EndpointView, headers(("Location" = String, description = "Path of what was made.")),
            links(("get" = (operation_id = "get_webhook", parameters(("id" = "$response.body#/id")))))),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["too_many_webhooks"]))),
)]
pub(super) async fn create(
    Admin(admin): Admin,
    Body(request): Body<CreateEndpoint>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let endpoint = state.webhooks.create(admin, request).await?;
    let location = format!("/admin/webhooks/{}", endpoint.id);
    Ok(HttpResponse::Created().insert_header((header::LOCATION, location)).json(endpoint))
}

/// Lists endpoints.
#[utoipa::path(
    get,
    path = "/admin/webhooks",
    operation_id = "list_webhooks",
    tag = "Webhooks",
    params(PageParams),
    responses(
        (status = 200, description = "A page of endpoints.", body = Page<EndpointView>),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn list(
    _: Admin,
    Params(params): Params<PageParams>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let limit = page_limit(params.limit)?;
    Ok(HttpResponse::Ok().json(state.webhooks.list(page_cursor(params.cursor)?, limit).await?))
}

/// An endpoint.
#[utoipa::path(
    get,
    path = "/admin/webhooks/{id}",
    operation_id = "get_webhook",
    tag = "Webhooks",
    params(PathId<EndpointId>),
    responses(
        (status = 200, description = "The endpoint.", body = EndpointView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["webhook_not_found"]))),
)]
pub(super) async fn get(_: Admin, PathId(id): PathId<EndpointId>, state: web::Data<AppState>) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.webhooks.get(id).await?))
}

/// Changes an endpoint; what is absent stays as it is.
#[utoipa::path(
    patch,
    path = "/admin/webhooks/{id}",
    operation_id = "change_webhook",
    tag = "Webhooks",
    params(PathId<EndpointId>),
    request_body = PatchEndpoint,
    responses(
        (status = 200, description = "The endpoint as it is now.", body = EndpointView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["webhook_not_found"]))),
)]
pub(super) async fn patch(
    Admin(admin): Admin,
    PathId(id): PathId<EndpointId>,
    request: HttpRequest,
    Body(change): Body<PatchEndpoint>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    without_condition(&request)?;
    Ok(HttpResponse::Ok().json(state.webhooks.patch(admin, id, change).await?))
}

/// Forgets an endpoint, and what was to be sent to it.
#[utoipa::path(
    delete,
    path = "/admin/webhooks/{id}",
    operation_id = "delete_webhook",
    tag = "Webhooks",
    params(PathId<EndpointId>),
    responses(
        (status = 204, description = "Gone."),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["webhook_not_found"]))),
)]
pub(super) async fn delete(
    Admin(admin): Admin,
    PathId(id): PathId<EndpointId>,
    request: HttpRequest,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    without_condition(&request)?;
    state.webhooks.delete(admin, id).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Sends an endpoint a `webhook.test`.
#[utoipa::path(
    post,
    path = "/admin/webhooks/{id}/test",
    operation_id = "test_webhook",
    tag = "Webhooks",
    params(PathId<EndpointId>),
    responses(
        (status = 202, description = "It will be sent.", body = DeliveryView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["webhook_not_found", "payload_too_large"]))),
)]
pub(super) async fn test(
    _: Admin,
    PathId(id): PathId<EndpointId>,
    _: UnreadBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Accepted().json(state.webhooks.test(id).await?))
}

/// Gives an endpoint a new secret, shown this once; the old one signs beside it for a day.
#[utoipa::path(
    post,
    path = "/admin/webhooks/{id}/rotate-secret",
    operation_id = "rotate_webhook_secret",
    tag = "Webhooks",
    params(PathId<EndpointId>),
    responses(
        (status = 200, description = "The endpoint with its new secret.", body = EndpointView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["webhook_not_found", "payload_too_large"]))),
)]
pub(super) async fn rotate_secret(
    Admin(admin): Admin,
    PathId(id): PathId<EndpointId>,
    _: UnreadBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.webhooks.rotate_secret(admin, id).await?))
}

/// What was sent to an endpoint, the newest first.
#[utoipa::path(
    get,
    path = "/admin/webhooks/{id}/deliveries",
    operation_id = "list_deliveries",
    tag = "Webhooks",
    params(PathId<EndpointId>, DeliveryParams),
    responses(
        (status = 200, description = "A page of deliveries.", body = Page<DeliveryView>),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["webhook_not_found"]))),
)]
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

/// Sends a delivery again.
#[utoipa::path(
    post,
    path = "/admin/webhooks/{id}/deliveries/{delivery_id}/retry",
    operation_id = "retry_delivery",
    tag = "Webhooks",
    params(PathId<EndpointId>, ("delivery_id" = DeliveryId, Path, description = "Its id.")),
    responses(
        (status = 202, description = "It will be sent.", body = DeliveryView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["webhook_not_found", "delivery_not_found", "payload_too_large"]))),
)]
pub(super) async fn retry(
    _: Admin,
    PathId(id): PathId<EndpointId>,
    request: HttpRequest,
    _: UnreadBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let delivery: &str = request.match_info().get("delivery_id").unwrap_or_default();
    let delivery: DeliveryId = delivery.parse().map_err(|problem| Error::Invalid(format!("delivery_id: {problem}")))?;
    Ok(HttpResponse::Accepted().json(state.webhooks.retry(id, delivery).await?))
}
