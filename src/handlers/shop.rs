//! `/time` and `/shop/settings`: what a page asks for first.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::state::AppState;
use crate::model::Timestamp;
use crate::services::ShopSettings;

/// By the clock that opens sales.
#[derive(Serialize, ToSchema)]
pub(super) struct Now {
    now: Timestamp,
}

/// The clock that opens sales.
#[utoipa::path(
    get,
    path = "/time",
    operation_id = "get_time",
    tag = "Shop",
    responses(
        (status = 200, description = "Now, with milliseconds.", body = Now),
    ),
)]
pub(super) async fn time(state: web::Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().json(Now { now: state.products.now() })
}

/// What a client must know of the shop before anybody has logged in.
#[utoipa::path(
    get,
    path = "/shop/settings",
    operation_id = "get_settings",
    tag = "Shop",
    responses(
        (status = 200, description = "The part of the configuration that everybody may read.", body = ShopSettings),
    ),
)]
pub(super) async fn settings(state: web::Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().insert_header(("Cache-Control", "no-cache")).json(&state.settings)
}
