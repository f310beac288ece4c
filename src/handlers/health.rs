//! `/healthz`, `/readyz` and `/metrics`.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::state::AppState;
use crate::error::{Error, Result};
use crate::services::Checks;

/// The process lives.
#[derive(Serialize, ToSchema)]
pub(super) struct Alive {
    #[schema(pattern = "^alive$")]
    status: &'static str,
}

/// Whether purchases can be taken and written.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready`, `unavailable`, or `stopping`.
    #[schema(pattern = "^(ready|unavailable|stopping)$")]
    status: &'static str,
    checks: Checks,
}

/// Whether the process lives.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "get_health",
    tag = "Operation",
    responses(
        (status = 200, description = "It does.", body = Alive),
    ),
)]
pub(super) async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(Alive { status: "alive" })
}

/// Whether purchases can be taken and written.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "get_readiness",
    tag = "Operation",
    responses(
        (status = 200, description = "They can.", body = Readiness),
        (status = 503, description = "They cannot; what is down is named.", body = Readiness),
    ),
)]
pub(super) async fn ready(state: web::Data<AppState>) -> HttpResponse {
    let checks = state.health.checks();
    let status = match (state.health.is_stopping(), checks.all_up()) {
        (true, _) => "stopping",
        (false, true) => "ready",
        (false, false) => "unavailable",
    };
    let body = Readiness { status, checks };
    if status == "ready" { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}

/// Figures for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "get_metrics",
    tag = "Operation",
    responses(
        (status = 200, description = "In the text format of Prometheus.", body = String, content_type = "text/plain; version=0.0.4; charset=utf-8"),
    ),
)]
pub(super) async fn metrics(state: web::Data<AppState>) -> Result<HttpResponse> {
    state.health.measure(&state.metrics);
    state.live.measure();
    let text = state.metrics.render().map_err(Error::Internal)?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}
