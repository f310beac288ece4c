//! What a merchant looks at: summaries of sales, orders, dead letters.

use actix_web::{HttpRequest, HttpResponse, web};

use super::extract::body::UnreadBody;
use super::extract::{Admin, Params, PathId};
use super::products::{LogParams, page_cursor, page_limit};
use super::state::AppState;
use crate::error::Result;
use crate::model::ProductId;

pub(super) async fn summary(
    _: Admin,
    PathId(id): PathId<ProductId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.summaries.get(id).await?))
}

pub(super) async fn dead_letters(
    _: Admin,
    Params(params): Params<LogParams>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let limit = page_limit(params.limit)?;
    Ok(HttpResponse::Ok().json(state.dead_letters.list(page_cursor(params.cursor)?, limit).await?))
}

pub(super) async fn replay(
    Admin(admin): Admin,
    request: HttpRequest,
    _: UnreadBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.dead_letters.replay(admin, letter_id(&request)).await?))
}

pub(super) async fn delete_dead_letter(
    Admin(admin): Admin,
    request: HttpRequest,
    _: UnreadBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    state.dead_letters.delete(admin, letter_id(&request)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Any text: one that names no letter is not found.
fn letter_id(request: &HttpRequest) -> String {
    request.match_info().get("id").unwrap_or_default().to_owned()
}
