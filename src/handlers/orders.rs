//! `/orders`, and what administrators do to them.

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::extract::body::{Body, OptionalBody};
use super::extract::{Admin, AuthenticatedUser, Params, PathId};
use super::lists::{page_cursor, page_limit};
use super::state::AppState;
use crate::error::Result;
use crate::model::{OrderChange, OrderId};
use crate::services::{Cancellation, MarkPaid, OrderView, Page};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Entries of a page: 1 to 100, 20 unless asked otherwise.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// The `next_cursor` of a page before.
    #[param(value_type = Option<OrderId>, inline)]
    cursor: Option<String>,
}

/// Lists the own orders, the newest first.
#[utoipa::path(
    get,
    path = "/orders",
    operation_id = "list_orders",
    tag = "Orders",
    params(ListParams),
    responses(
        (status = 200, description = "A page of orders.", body = Page<OrderView>),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["rate_limited"]))),
)]
pub(super) async fn list(
    AuthenticatedUser(identity): AuthenticatedUser,
    Params(params): Params<ListParams>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let limit = page_limit(params.limit)?;
    let page = state.orders.list(identity, page_cursor(params.cursor)?, limit).await?;
    Ok(HttpResponse::Ok().json(page))
}

/// An order, for its buyer or an administrator.
#[utoipa::path(
    get,
    path = "/orders/{id}",
    operation_id = "get_order",
    tag = "Orders",
    params(PathId<OrderId>),
    responses(
        (status = 200, description = "The order.", body = OrderView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["order_not_found", "rate_limited"]))),
)]
pub(super) async fn get(
    AuthenticatedUser(identity): AuthenticatedUser,
    PathId(id): PathId<OrderId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.orders.get(identity, id).await?))
}

/// A body that says nothing.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Gives an unpaid order up; its units go back on sale. Also 200 when it is cancelled already.
#[utoipa::path(
    post,
    path = "/orders/{id}/cancel",
    operation_id = "cancel_order",
    tag = "Orders",
    params(PathId<OrderId>),
    request_body = Option<Nothing>,
    responses(
        (status = 200, description = "The cancelled order.", body = OrderView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["order_not_found", "not_cancellable", "rate_limited"]))),
)]
pub(super) async fn cancel(
    AuthenticatedUser(identity): AuthenticatedUser,
    PathId(id): PathId<OrderId>,
    _: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.order_changes.cancel(identity, id).await?))
}

/// Cancels an unpaid or paid order; a paid one gets its money back. Its units go back on sale.
#[utoipa::path(
    post,
    path = "/admin/orders/{id}/cancel",
    operation_id = "cancel_order_as_admin",
    tag = "Merchant",
    params(PathId<OrderId>),
    request_body = Option<Cancellation>,
    responses(
        (status = 200, description = "The cancelled order.", body = OrderView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["order_not_found", "not_cancellable"]))),
)]
pub(super) async fn cancel_as_admin(
    Admin(admin): Admin,
    PathId(id): PathId<OrderId>,
    OptionalBody(request): OptionalBody<Cancellation>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.order_changes.cancel_as_admin(admin, id, request).await?))
}

/// Says that an order was paid in another way.
#[utoipa::path(
    post,
    path = "/admin/orders/{id}/mark-paid",
    operation_id = "mark_order_paid",
    tag = "Merchant",
    params(PathId<OrderId>),
    request_body = MarkPaid,
    responses(
        (status = 200, description = "The paid order.", body = OrderView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["order_not_found", "not_payable"]))),
)]
pub(super) async fn mark_paid(
    Admin(admin): Admin,
    PathId(id): PathId<OrderId>,
    Body(request): Body<MarkPaid>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.order_changes.mark_paid(admin, id, request).await?))
}

/// Every change of an order: when, from what to what, by whom and why.
#[utoipa::path(
    get,
    path = "/admin/orders/{id}/history",
    operation_id = "get_order_history",
    tag = "Merchant",
    params(PathId<OrderId>),
    responses(
        (status = 200, description = "All changes, the oldest first.", body = Page<OrderChange>),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["order_not_found"]))),
)]
pub(super) async fn history(
    Admin(admin): Admin,
    PathId(id): PathId<OrderId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.order_changes.history(admin, id).await?))
}
