//! `/healthz`, `/readyz` and `/metrics`.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::error::{Error, Result};
use crate::services::Health;
use crate::telemetry::Metrics;

pub(super) async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "alive"}))
}

pub(super) async fn ready(health: web::Data<Health>) -> HttpResponse {
    let checks = health.checks();
    let status = match (health.is_stopping(), checks.all_up()) {
        (true, _) => "stopping",
        (false, true) => "ready",
        (false, false) => "unavailable",
    };
    let body = json!({"status": status, "checks": checks});
    if status == "ready" { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}

pub(super) async fn metrics(health: web::Data<Health>, metrics: web::Data<Metrics>) -> Result<HttpResponse> {
    health.measure(&metrics);
    let text = metrics.render().map_err(Error::Internal)?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}
