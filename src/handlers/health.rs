//! `/healthz` and `/readyz`.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::services::Health;

pub(super) async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "alive"}))
}

pub(super) async fn ready(health: web::Data<Health>) -> HttpResponse {
    let checks = health.check().await;
    let body = json!({"status": if checks.all_up() { "ready" } else { "unavailable" }, "checks": checks});
    if checks.all_up() { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}
