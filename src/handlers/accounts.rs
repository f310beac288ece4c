//! `/register`, `/login`, `/logout`, `/me`, `/me/password`.

use actix_web::{HttpResponse, web};

use super::extract::OpenRegistration;
use super::{Body, ClientAddress, SignedIn, UnreadBody};
use crate::error::Result;
use crate::services::{Accounts, Credentials, PasswordChange};

/// On what only the asker may see.
const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");

pub(super) async fn register(
    _: OpenRegistration,
    ClientAddress(address): ClientAddress,
    Body(credentials): Body<Credentials>,
    accounts: web::Data<Accounts>,
) -> Result<HttpResponse> {
    let registered = accounts.register(credentials, address).await?;
    Ok(HttpResponse::Created().insert_header(NO_STORE).json(registered))
}

pub(super) async fn log_in(
    ClientAddress(address): ClientAddress,
    Body(credentials): Body<Credentials>,
    accounts: web::Data<Accounts>,
) -> Result<HttpResponse> {
    let token = accounts.log_in(credentials, address).await?;
    Ok(HttpResponse::Ok().insert_header(NO_STORE).json(token))
}

pub(super) async fn log_out(
    SignedIn(session): SignedIn,
    _: UnreadBody,
    accounts: web::Data<Accounts>,
) -> Result<HttpResponse> {
    accounts.log_out(session).await?;
    Ok(HttpResponse::NoContent().finish())
}

pub(super) async fn me(SignedIn(session): SignedIn, accounts: web::Data<Accounts>) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(accounts.profile(session).await?))
}

pub(super) async fn change_password(
    SignedIn(session): SignedIn,
    ClientAddress(address): ClientAddress,
    Body(change): Body<PasswordChange>,
    accounts: web::Data<Accounts>,
) -> Result<HttpResponse> {
    accounts.change_password(session, change, address).await?;
    Ok(HttpResponse::NoContent().finish())
}
