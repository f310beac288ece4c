//! `/register`, `/login`, `/logout`, `/me`, `/me/password`.

use actix_web::{HttpResponse, web};

use super::extract::body::{Body, UnreadBody};
use super::extract::{ClientAddress, OpenRegistration, SignedIn};
use super::state::AppState;
use crate::error::Result;
use crate::services::{Credentials, PasswordChange};

/// On what only the asker may see.
const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");

pub(super) async fn register(
    _: OpenRegistration,
    ClientAddress(address): ClientAddress,
    Body(credentials): Body<Credentials>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let registered = state.accounts.register(credentials, address).await?;
    Ok(HttpResponse::Created().insert_header(NO_STORE).json(registered))
}

pub(super) async fn log_in(
    ClientAddress(address): ClientAddress,
    Body(credentials): Body<Credentials>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let token = state.accounts.log_in(credentials, address).await?;
    Ok(HttpResponse::Ok().insert_header(NO_STORE).json(token))
}

pub(super) async fn log_out(
    SignedIn(session): SignedIn,
    _: UnreadBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    state.accounts.log_out(session).await?;
    Ok(HttpResponse::NoContent().finish())
}

pub(super) async fn me(SignedIn(session): SignedIn, state: web::Data<AppState>) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.accounts.profile(session).await?))
}

pub(super) async fn change_password(
    SignedIn(session): SignedIn,
    ClientAddress(address): ClientAddress,
    Body(change): Body<PasswordChange>,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    state.accounts.change_password(session, change, address).await?;
    Ok(HttpResponse::NoContent().finish())
}
