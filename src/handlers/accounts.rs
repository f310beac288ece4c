//! `/register`, `/login`, `/me`.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::{HttpRequest, HttpResponse, web};

use super::{Body, Caller};
use crate::error::Result;
use crate::services::{Accounts, Credentials};

pub(super) async fn register(
    request: HttpRequest,
    Body(credentials): Body<Credentials>,
    accounts: web::Data<Accounts>,
) -> Result<HttpResponse> {
    let profile = accounts.register(credentials, address(&request)).await?;
    Ok(HttpResponse::Created().json(profile))
}

pub(super) async fn log_in(
    request: HttpRequest,
    Body(credentials): Body<Credentials>,
    accounts: web::Data<Accounts>,
) -> Result<HttpResponse> {
    let token = accounts.log_in(credentials, address(&request)).await?;
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(token))
}

pub(super) async fn me(Caller(identity): Caller, accounts: web::Data<Accounts>) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(accounts.profile(identity).await?))
}

/// Where the request came from. A forwarded address is anybody's word, so it is not looked at.
fn address(request: &HttpRequest) -> IpAddr {
    request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip())
}
