//! `/register`, `/login`, `/me`.

use actix_web::{HttpResponse, web};

use super::{Body, Caller, ClientAddress};
use crate::error::Result;
use crate::services::{Accounts, Credentials};

pub(super) async fn register(
    ClientAddress(address): ClientAddress,
    Body(credentials): Body<Credentials>,
    accounts: web::Data<Accounts>,
) -> Result<HttpResponse> {
    let profile = accounts.register(credentials, address).await?;
    Ok(HttpResponse::Created().json(profile))
}

pub(super) async fn log_in(
    ClientAddress(address): ClientAddress,
    Body(credentials): Body<Credentials>,
    accounts: web::Data<Accounts>,
) -> Result<HttpResponse> {
    let token = accounts.log_in(credentials, address).await?;
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(token))
}

pub(super) async fn me(Caller(identity): Caller, accounts: web::Data<Accounts>) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(accounts.profile(identity).await?))
}
