//! What a merchant looks at: summaries of sales, orders, dead letters.

use std::net::IpAddr;
use std::str::FromStr;

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::extract::body::UnreadBody;
use super::extract::{Admin, ClientAddress, Params, PathId};
use super::lists::{page_cursor, page_limit};
use super::state::AppState;
use crate::error::{Error, Result};
use crate::model::{ProductId, Timestamp, UserId};
use crate::services::{
    DeadLetterPage, Export, Live, MerchantOrder, OrderFilter, OrderQuery, Page, ReplayedLetter, Summary, WrittenStatus,
};

/// A request, as it looks from here.
#[derive(Serialize, ToSchema)]
pub(super) struct SeenRequest {
    /// The last address on its way that is no trusted proxy.
    #[schema(value_type = String)]
    client_address: IpAddr,
    /// Who is connected.
    #[schema(value_type = Option<String>, required)]
    peer_address: Option<IpAddr>,
    via_proxy: bool,
    /// `X-Forwarded-For`.
    #[schema(required)]
    forwarded_for: Option<String>,
    /// `X-Forwarded-Proto`.
    #[schema(required)]
    scheme: Option<String>,
    #[schema(required)]
    host: Option<String>,
    http_version: String,
    server_time: Timestamp,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LetterParams {
    /// Entries of a page: 1 to 100, 20 unless asked otherwise.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// The `next_cursor` of a page before.
    #[param(pattern = "^[0-9]{1,15}[.].*$")]
    cursor: Option<String>,
}

/// Any text: one that names no letter is not found.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "read from the path as it is")]
pub(super) struct LetterId {
    /// Id of the letter.
    id: String,
}

/// What a sale has come to, in units: `remaining + queued + unpaid + paid = stock` when it is balanced.
#[utoipa::path(
    get,
    path = "/admin/products/{id}/summary",
    operation_id = "get_summary",
    tag = "Merchant",
    params(PathId<ProductId>),
    responses(
        (status = 200, description = "The counts.", body = Summary),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["product_not_found"]))),
)]
pub(super) async fn summary(
    _: Admin,
    PathId(id): PathId<ProductId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.summaries.get(id).await?))
}

/// Where a page of orders begins: between any two orders. It has one spelling.
struct Place(Uuid);

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let place = Uuid::try_parse(text).map_err(|_| ())?;
        if place.to_string() == text { Ok(Self(place)) } else { Err(()) }
    }
}

/// Lists orders of everybody, the newest first.
#[utoipa::path(
    get,
    path = "/admin/orders",
    operation_id = "list_all_orders",
    tag = "Merchant",
    params(OrderQuery),
    responses(
        (status = 200, description = "A page of orders. It may be shorter than asked although there is a next one.", body = Page<MerchantOrder>),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn orders(
    Admin(admin): Admin,
    Params(query): Params<OrderQuery>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let (limit, filter) = (page_limit(query.limit)?, OrderFilter::of(&query)?);
    let before = page_cursor(query.cursor)?.map(|Place(before)| before);
    Ok(HttpResponse::Ok().json(state.order_list.page(admin, &filter, before, limit).await?))
}

/// The same orders as a file: UTF-8 with a byte order mark, RFC 4180. No cell begins with a character that a spreadsheet would take for a formula.
#[utoipa::path(
    get,
    path = "/admin/orders.csv",
    operation_id = "export_orders",
    tag = "Merchant",
    params(
        ("product_id" = Option<ProductId>, Query),
        ("status" = inline(Option<WrittenStatus>), Query),
        ("user_id" = Option<UserId>, Query),
        ("q" = Option<String>, Query, description = "An order's id, a payment's reference or a user's name.", min_length = 1, max_length = 255, pattern = r"\S"),
    ),
    responses(
        (status = 200, description = "All orders that fit.", body = String, content_type = "text/csv; charset=utf-8",
            headers(("Content-Disposition" = String, description = "Names the file."))),
    ),
    security(("bearer" = [])),
)]
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

/// What this instance does, for one who watches a sale.
#[utoipa::path(
    get,
    path = "/admin/live",
    operation_id = "get_live_figures",
    tag = "Merchant",
    responses(
        (status = 200, description = "Counts since it began, and what waits.", body = Live),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn live(_: Admin, state: web::Data<AppState>) -> HttpResponse {
    state.health.measure(&state.metrics);
    HttpResponse::Ok().json(state.live.at(state.products.now()))
}

/// How a request looks from here, behind whatever stands in between.
#[utoipa::path(
    get,
    path = "/admin/check",
    operation_id = "check_connection",
    tag = "Merchant",
    responses(
        (status = 200, description = "Addresses, scheme and host as they arrived.", body = SeenRequest),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn check(
    _: Admin,
    ClientAddress(client): ClientAddress,
    request: HttpRequest,
    state: web::Data<AppState>,
) -> HttpResponse {
    let peer = request.peer_addr().map(|peer| peer.ip().to_canonical());
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    HttpResponse::Ok().json(SeenRequest {
        client_address: client,
        peer_address: peer,
        via_proxy: peer != Some(client),
        forwarded_for: header("x-forwarded-for"),
        scheme: header("x-forwarded-proto"),
        host: header("host"),
        http_version: format!("{:?}", request.version()),
        server_time: state.products.now(),
    })
}

/// Messages that were set aside, the oldest first.
#[utoipa::path(
    get,
    path = "/admin/dead-letters",
    operation_id = "list_dead_letters",
    tag = "Merchant",
    params(LetterParams),
    responses(
        (status = 200, description = "A page of them.", body = DeadLetterPage),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn dead_letters(
    _: Admin,
    Params(params): Params<LetterParams>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let limit = page_limit(params.limit)?;
    Ok(HttpResponse::Ok().json(state.dead_letters.list(page_cursor(params.cursor)?, limit).await?))
}

/// Puts a message back, as far as its purchases can still become orders.
#[utoipa::path(
    post,
    path = "/admin/dead-letters/{id}/replay",
    operation_id = "replay_dead_letter",
    tag = "Merchant",
    params(LetterId),
    responses(
        (status = 200, description = "What became of each purchase.", body = ReplayedLetter),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["dead_letter_not_found", "payload_too_large"]))),
)]
pub(super) async fn replay(
    Admin(admin): Admin,
    request: HttpRequest,
    _: UnreadBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.dead_letters.replay(admin, letter_id(&request)).await?))
}

/// Throws a message away for good.
#[utoipa::path(
    delete,
    path = "/admin/dead-letters/{id}",
    operation_id = "delete_dead_letter",
    tag = "Merchant",
    params(LetterId),
    responses(
        (status = 204, description = "Gone."),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["dead_letter_not_found", "payload_too_large"]))),
)]
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
