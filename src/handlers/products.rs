//! `/products`.

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::body::{Body, OptionalBody};
use super::extract::{Admin, Params, PathId, if_match, without_condition};
use super::lists::{page_cursor, page_limit};
use super::openapi::{Conditional, ForRevision, Idempotent};
use super::rendered::rendered;
use super::state::AppState;
use crate::error::Result;
use crate::model::ProductId;
use crate::services::{
    AdminAction, Answered, Archive, Audit, CreateProduct, IdempotencyKey, Page, PatchProduct, ProductView, Restock,
    SaleFilter,
};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    #[param(inline)]
    state: Option<SaleFilter>,
    /// Entries of a page: 1 to 100, 20 unless asked otherwise.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// The `next_cursor` of a page before.
    #[param(pattern = "^[1-9][0-9]{0,14}$")]
    cursor: Option<String>,
}

/// Of the log of changes.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LogParams {
    /// Only what was done to it, such as `product 7` or `webhook 3`.
    object: Option<String>,
    /// Entries of a page: 1 to 100, 20 unless asked otherwise.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// The `next_cursor` of a page before.
    #[param(pattern = "^[1-9][0-9]{0,14}$")]
    cursor: Option<String>,
}

/// Lists products, the newest first.
#[utoipa::path(
    get,
    path = "/products",
    operation_id = "list_products",
    tag = "Products",
    params(
        ListParams,
        Conditional,
    ),
    responses(
        (status = 200, description = "A page of products.", body = Page<ProductView>, headers(("ETag" = String, description = "Stands for this version."), ("Vary" = String, description = "`Accept-Encoding`."))),
        (status = 304, description = "The client has this version.", headers(("ETag" = String, description = "Stands for this version."), ("Vary" = String, description = "`Accept-Encoding`."))),
    ),
)]
pub(super) async fn list(
    Params(params): Params<ListParams>,
    request: HttpRequest,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let limit = page_limit(params.limit)?;
    Ok(rendered(&request, state.products.list(params.state, page_cursor(params.cursor)?, limit).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AllParams {
    /// Only products that are archived, or that are not.
    archived: Option<bool>,
    /// Entries of a page: 1 to 100, 20 unless asked otherwise.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// The `next_cursor` of a page before.
    #[param(pattern = "^[1-9][0-9]{0,14}$")]
    cursor: Option<String>,
}

/// Lists all products, archived ones too, the newest first.
#[utoipa::path(
    get,
    path = "/admin/products",
    operation_id = "list_all_products",
    tag = "Merchant",
    params(AllParams),
    responses(
        (status = 200, description = "A page of products.", body = Page<ProductView>),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn list_all(
    _: Admin,
    Params(params): Params<AllParams>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let limit = page_limit(params.limit)?;
    let page = state.products.list_all(params.archived, page_cursor(params.cursor)?, limit).await?;
    Ok(HttpResponse::Ok().json(page))
}

/// A product as it is now, also a draft.
#[utoipa::path(
    get,
    path = "/admin/products/{id}",
    operation_id = "get_any_product",
    tag = "Merchant",
    params(PathId<ProductId>),
    responses(
        (status = 200, description = "The product.", body = ProductView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["product_not_found"]))),
)]
pub(super) async fn get_any(
    _: Admin,
    PathId(id): PathId<ProductId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.products.get_any(id).await?))
}

/// A product. `remaining` is at most 200 ms old. A draft is not found.
#[utoipa::path(
    get,
    path = "/products/{id}",
    operation_id = "get_product",
    tag = "Products",
    params(
        PathId<ProductId>,
        Conditional,
    ),
    responses(
        (status = 200, description = "The product.", body = ProductView, headers(("ETag" = String, description = "Stands for this version."), ("Vary" = String, description = "`Accept-Encoding`."))),
        (status = 304, description = "The client has this version.", headers(("ETag" = String, description = "Stands for this version."), ("Vary" = String, description = "`Accept-Encoding`."))),
    ),
    extensions(("x-codes" = json!(["product_not_found"]))),
)]
pub(super) async fn get(
    PathId(id): PathId<ProductId>,
    request: HttpRequest,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    Ok(rendered(&request, state.products.get(id).await?))
}

/// Makes a product, and with it its sale.
#[utoipa::path(
    post,
    path = "/products",
    operation_id = "create_product",
    tag = "Merchant",
    params(
        Idempotent,
    ),
    request_body = CreateProduct,
    responses(
        (status = 201, description = "Made.", body = ProductView, headers(("Location" = String, description = "Path of what was made.")),
            links(
                ("get" = (operation_id = "get_product", parameters(("id" = "$response.body#/id")))),
                ("change" = (operation_id = "change_product", parameters(("id" = "$response.body#/id")))),
                ("buy" = (operation_id = "buy", parameters(("id" = "$response.body#/id")))),
                ("summary" = (operation_id = "get_summary", parameters(("id" = "$response.body#/id")))),
            )),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["idempotency_conflict"]))),
)]
pub(super) async fn create(
    Admin(admin): Admin,
    request: HttpRequest,
    Body(product): Body<CreateProduct>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    without_condition(&request)?;
    let Answered { product, json } = state.catalog.create(admin, idempotency_key(&request)?, product).await?;
    let location = format!("/products/{product}");
    Ok(HttpResponse::Created().insert_header((header::LOCATION, location)).content_type(ContentType::json()).body(json))
}

/// Changes a product; what is absent stays as it is. In force on every instance within a second.
///
/// Lowering the stock never breaks a promise: less than is sold or promised is `stock_below_sold`.
#[utoipa::path(
    patch,
    path = "/products/{id}",
    operation_id = "change_product",
    tag = "Merchant",
    params(
        PathId<ProductId>,
        ForRevision,
    ),
    request_body = PatchProduct,
    responses(
        (status = 200, description = "The product as it is now.", body = ProductView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["product_not_found", "stock_below_sold", "draft", "published", "archived", "precondition_failed"]))),
)]
pub(super) async fn patch(
    Admin(admin): Admin,
    PathId(id): PathId<ProductId>,
    request: HttpRequest,
    Body(change): Body<PatchProduct>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let revisions = if_match(&request)?;
    Ok(HttpResponse::Ok().json(state.catalog.patch(admin, id, revisions, change).await?))
}

/// Adds units to a sale.
#[utoipa::path(
    post,
    path = "/products/{id}/restock",
    operation_id = "restock_product",
    tag = "Merchant",
    params(
        PathId<ProductId>,
        Idempotent,
        ForRevision,
    ),
    request_body = Restock,
    responses(
        (status = 200, description = "The product as it is now.", body = ProductView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["product_not_found", "idempotency_conflict", "archived", "precondition_failed"]))),
)]
pub(super) async fn restock(
    Admin(admin): Admin,
    PathId(id): PathId<ProductId>,
    request: HttpRequest,
    Body(restock): Body<Restock>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let (key, revisions) = (idempotency_key(&request)?, if_match(&request)?);
    let Answered { json, .. } = state.catalog.restock(admin, id, key, revisions, restock).await?;
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(json))
}

/// Takes an ended or paused sale out of the lists. Nobody can buy any more; its orders are kept.
#[utoipa::path(
    post,
    path = "/admin/products/{id}/archive",
    operation_id = "archive_product",
    tag = "Merchant",
    params(
        PathId<ProductId>,
        ForRevision,
    ),
    request_body = Option<Archive>,
    responses(
        (status = 200, description = "Archived, now or before.", body = ProductView),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["product_not_found", "still_live", "precondition_failed"]))),
)]
pub(super) async fn archive(
    Admin(admin): Admin,
    PathId(id): PathId<ProductId>,
    request: HttpRequest,
    OptionalBody(archive): OptionalBody<Archive>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let revisions = if_match(&request)?;
    Ok(HttpResponse::Ok().json(state.catalog.archive(admin, id, revisions, archive).await?))
}

/// What administrators changed, the newest first.
#[utoipa::path(
    get,
    path = "/admin/log",
    operation_id = "list_admin_log",
    tag = "Merchant",
    params(LogParams),
    responses(
        (status = 200, description = "A page of changes.", body = Page<AdminAction>),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn log(
    _: Admin,
    Params(params): Params<LogParams>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let limit = page_limit(params.limit)?;
    Ok(HttpResponse::Ok().json(state.admin_log.list(params.object, page_cursor(params.cursor)?, limit).await?))
}

fn idempotency_key(request: &HttpRequest) -> Result<Option<IdempotencyKey>> {
    request.headers().get("Idempotency-Key").map(|value| IdempotencyKey::parse(value.as_bytes())).transpose()
}

/// Compares what the gate and the database say of a sale.
#[utoipa::path(
    get,
    path = "/admin/products/{id}/audit",
    operation_id = "audit_product",
    tag = "Merchant",
    params(PathId<ProductId>),
    responses(
        (status = 200, description = "All counts, and what does not fit.", body = Audit),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["product_not_found"]))),
)]
pub(super) async fn audit(_: Admin, PathId(id): PathId<ProductId>, state: web::Data<AppState>) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.reconciler.audit(id).await?))
}
