//! What a merchant looks at: summaries of sales, orders, dead letters.

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use serde_json::json;
use uuid::Uuid;

use super::extract::body::UnreadBody;
use super::extract::{Admin, ClientAddress, Params, PathId};
use super::products::{PageParams, page_cursor, page_limit};
use super::state::AppState;
use crate::error::{Error, Result};
use crate::model::ProductId;
use crate::services::{Export, OrderFilter, OrderQuery};

pub(super) async fn summary(
    _: Admin,
    PathId(id): PathId<ProductId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.summaries.get(id).await?))
}

pub(super) async fn orders(
    Admin(admin): Admin,
    Params(query): Params<OrderQuery>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let (limit, filter) = (page_limit(query.limit)?, OrderFilter::of(&query)?);
    let before: Option<Uuid> = page_cursor(query.cursor)?;
    Ok(HttpResponse::Ok().json(state.order_list.page(admin, &filter, before, limit).await?))
}

pub(super) async fn export(
    _: Admin,
    request: HttpRequest,
    Params(query): Params<OrderQuery>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    if query.limit.is_some() || query.cursor.is_some() {
        return Err(Error::Invalid("limit, cursor: a file has all orders".to_owned()));
    }
    let export = state.exports.begin(OrderFilter::of(&query)?)?;
    let mut reply = HttpResponse::Ok();
    reply.content_type("text/csv; charset=utf-8");
    reply.insert_header((header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", export.file_name())));
    if request.method() == Method::HEAD {
        return Ok(reply.finish());
    }
    // What fails before the first byte is an error like any other; later it can only end the connection.
    let mut export = export;
    let first = export.next().await?;
    let pieces = stream::unfold((first, export), |(piece, mut export): (Option<Vec<u8>>, Export)| async move {
        let piece = piece?;
        Some(match export.next().await {
            Ok(next) => (Ok(web::Bytes::from(piece)), (next, export)),
            Err(error) => (Err(error), (None, export)),
        })
    });
    Ok(reply.streaming(pieces))
}

/// What this instance does, for one who watches.
pub(super) async fn live(_: Admin, state: web::Data<AppState>) -> HttpResponse {
    state.health.measure(&state.metrics);
    HttpResponse::Ok().json(state.live.at(state.products.now()))
}

/// How a request of the asker's browser looks from here, behind whatever stands in between.
pub(super) async fn check(
    _: Admin,
    ClientAddress(client): ClientAddress,
    request: HttpRequest,
    state: web::Data<AppState>,
) -> HttpResponse {
    let peer = request.peer_addr().map(|peer| peer.ip().to_canonical());
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    HttpResponse::Ok().json(json!({
        "client_address": client,
        "peer_address": peer,
        "via_proxy": peer != Some(client),
        "forwarded_for": header("x-forwarded-for"),
        "scheme": header("x-forwarded-proto"),
        "host": header("host"),
        "http_version": format!("{:?}", request.version()),
        "server_time": state.products.now(),
    }))
}

pub(super) async fn dead_letters(
    _: Admin,
    Params(params): Params<PageParams>,
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
