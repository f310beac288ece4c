//! `/healthz`, `/readyz` and `/metrics`.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::state::AppState;
use crate::error::{Error, Result};

pub(super) async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "alive"}))
}

pub(super) async fn ready(state: web::Data<AppState>) -> HttpResponse {
    let checks = state.health.checks();
    let status = match (state.health.is_stopping(), checks.all_up()) {
        (true, _) => "stopping",
        (false, true) => "ready",
        (false, false) => "unavailable",
    };
    let body = json!({"status": status, "checks": checks});
    if status == "ready" { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}

pub(super) async fn metrics(state: web::Data<AppState>) -> Result<HttpResponse> {
    state.health.measure(&state.metrics);
    state.live.measure();
    let text = state.metrics.render().map_err(Error::Internal)?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}
