//! `/payments`, those of an order, and what providers send.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};

use super::extract::body::{OptionalBody, RawBody};
use super::extract::{AuthenticatedUser, PathId};
use super::orders::Nothing;
use super::state::AppState;
use crate::error::Result;
use crate::model::{OrderId, PaymentId};

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

pub(super) async fn of_order(
    AuthenticatedUser(reader): AuthenticatedUser,
    PathId(order): PathId<OrderId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.payments.of_order(reader, order).await?))
}

pub(super) async fn get(
    AuthenticatedUser(reader): AuthenticatedUser,
    PathId(id): PathId<PaymentId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.payments.get(reader, id).await?))
}

/// Of a provider: the bytes as they came are what is signed.
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
