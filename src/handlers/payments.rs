//! `/payments`, those of an order, and what providers send.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};

use super::extract::body::{OptionalBody, RawBody};
use super::extract::{AuthenticatedUser, PathId};
use super::openapi::{Callback, CallbackHeaders};
use super::orders::Nothing;
use super::state::AppState;
use crate::error::Result;
use crate::model::{OrderId, PaymentId, ProviderName};
use crate::services::{Page, PaymentView};

/// Begins to pay an order: `redirect_url` is where the buyer goes. 200 with the pending payment if there is one.
#[utoipa::path(
    post,
    path = "/orders/{id}/payments",
    operation_id = "start_payment",
    tag = "Payments",
    params(PathId<OrderId>),
    request_body = Option<Nothing>,
    responses(
        (status = 201, description = "Begun.", body = PaymentView, headers(("Location" = String, description = "Path of what was made.")),
            links(("get" = (operation_id = "get_payment", parameters(("id" = "$response.body#/id")))))),
        (status = 200, description = "Was begun before.", body = PaymentView, headers(("Location" = String, description = "Path of what was made."))),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["order_not_found", "not_payable", "payments_off", "rate_limited"]))),
)]
pub(super) async fn start(
    AuthenticatedUser(buyer): AuthenticatedUser,
    PathId(order): PathId<OrderId>,
    _: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let (payment, is_new) = state.payments.start(buyer, order).await?;
    let mut reply = if is_new { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(reply.insert_header((header::LOCATION, format!("/payments/{}", payment.id))).json(payment))
}

/// The payments of an order, for its buyer or an administrator.
#[utoipa::path(
    get,
    path = "/orders/{id}/payments",
    operation_id = "list_payments",
    tag = "Payments",
    params(PathId<OrderId>),
    responses(
        (status = 200, description = "All of them, the newest first.", body = Page<PaymentView>),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["order_not_found", "rate_limited"]))),
)]
pub(super) async fn of_order(
    AuthenticatedUser(reader): AuthenticatedUser,
    PathId(order): PathId<OrderId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.payments.of_order(reader, order).await?))
}

/// A payment, for its buyer or an administrator.
#[utoipa::path(
    get,
    path = "/payments/{id}",
    operation_id = "get_payment",
    tag = "Payments",
    params(PathId<PaymentId>),
    responses(
        (status = 200, description = "The payment.", body = PaymentView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["payment_not_found", "rate_limited"]))),
)]
pub(super) async fn get(
    AuthenticatedUser(reader): AuthenticatedUser,
    PathId(id): PathId<PaymentId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.payments.get(reader, id).await?))
}

/// What a payment provider tells, signed with the secret that it shares with the shop: [Standard Webhooks](https://www.standardwebhooks.com), or Stripe's own way. 200 for all that is genuine, however often it comes; after a 503 it is to be sent again.
#[utoipa::path(
    post,
    path = "/payments/webhooks/{provider}",
    operation_id = "receive_callback",
    tag = "Payments",
    params(("provider" = ProviderName, Path, description = "Who takes the money."), CallbackHeaders),
    request_body(content = Callback, content_type = "application/json", description = "Of a provider that speaks Standard Webhooks."),
    responses(
        (status = 200, description = "Genuine, and remembered."),
    ),
    extensions(("x-codes" = json!(["invalid_signature", "not_found", "payload_too_large"]))),
)]
pub(super) async fn callback(
    request: HttpRequest,
    RawBody(body): RawBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let provider = request.match_info().get("provider").unwrap_or_default();
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    state.payments.receive(provider, header, &body).await?;
    Ok(HttpResponse::Ok().finish())
}
