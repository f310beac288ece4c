//! `/time` and `/shop/settings`: what a page asks for first.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::state::AppState;

/// By the clock that opens sales.
pub(super) async fn time(state: web::Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().json(json!({"now": state.products.now()}))
}

pub(super) async fn settings(state: web::Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().insert_header(("Cache-Control", "no-cache")).json(&state.settings)
}
