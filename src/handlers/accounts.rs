//! `/register`, `/login`, `/logout`, `/me`, `/me/password`.

use actix_web::{HttpResponse, web};

use super::extract::body::{Body, UnreadBody};
use super::extract::{ClientAddress, OpenRegistration, SignedIn};
use super::state::AppState;
use crate::error::Result;
use crate::services::{Credentials, LoggedIn, PasswordChange, Profile, Registered};

/// On what only the asker may see.
const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");

/// Registers a buyer, who is logged in at once.
///
/// 404 where registration is closed, or users are those of another directory.
#[utoipa::path(
    post,
    path = "/register",
    operation_id = "register",
    tag = "Accounts",
    request_body = Credentials,
    responses(
        (status = 201, description = "Registered.", body = Registered),
    ),
    extensions(("x-codes" = json!(["not_found", "username_taken", "rate_limited"]))),
)]
pub(super) async fn register(
    _: OpenRegistration,
    ClientAddress(address): ClientAddress,
    Body(credentials): Body<Credentials>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let registered = state.accounts.register(credentials, address).await?;
    Ok(HttpResponse::Created().insert_header(NO_STORE).json(registered))
}

/// Gives a token for a name and a password.
#[utoipa::path(
    post,
    path = "/login",
    operation_id = "log_in",
    tag = "Accounts",
    request_body = Credentials,
    responses(
        (status = 200, description = "Logged in.", body = LoggedIn),
    ),
    extensions(("x-codes" = json!(["invalid_credentials", "rate_limited"]))),
)]
pub(super) async fn log_in(
    ClientAddress(address): ClientAddress,
    Body(credentials): Body<Credentials>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let token = state.accounts.log_in(credentials, address).await?;
    Ok(HttpResponse::Ok().insert_header(NO_STORE).json(token))
}

/// Withdraws every token of this user that was issued before, on every instance within 5 seconds.
#[utoipa::path(
    post,
    path = "/logout",
    operation_id = "log_out",
    tag = "Accounts",
    responses(
        (status = 204, description = "Logged out."),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn log_out(
    SignedIn(session): SignedIn,
    _: UnreadBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    state.accounts.log_out(session).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Who the token belongs to.
#[utoipa::path(
    get,
    path = "/me",
    operation_id = "get_me",
    tag = "Accounts",
    responses(
        (status = 200, description = "The user.", body = Profile),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn me(SignedIn(session): SignedIn, state: web::Data<AppState>) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.accounts.profile(session).await?))
}

/// Changes the password, and withdraws every older token.
///
/// 404 for users of another directory.
#[utoipa::path(
    post,
    path = "/me/password",
    operation_id = "change_password",
    tag = "Accounts",
    request_body = PasswordChange,
    responses(
        (status = 204, description = "Changed."),
    ),
    security(("bearer" = [])),
    extensions(("x-codes" = json!(["invalid_credentials", "not_found", "rate_limited"]))),
)]
pub(super) async fn change_password(
    SignedIn(session): SignedIn,
    ClientAddress(address): ClientAddress,
    Body(change): Body<PasswordChange>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    state.accounts.change_password(session, change, address).await?;
    Ok(HttpResponse::NoContent().finish())
}
