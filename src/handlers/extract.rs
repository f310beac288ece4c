//! What handlers take from a request, with errors that name the field.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::future::{Ready, ready};
use serde::de::DeserializeOwned;

use crate::complaint::Complaint;
use crate::error::{Error, Result};
use crate::model::Role;
use crate::services::{Identity, Tokens};

/// Whoever sends a valid token.
pub struct Caller(pub Identity);

impl FromRequest for Caller {
    type Error = Error;
    type Future = Ready<Result<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(identify(request).map(Self))
    }
}

/// A caller who is an administrator.
pub struct Admin(pub Identity);

impl FromRequest for Admin {
    type Error = Error;
    type Future = Ready<Result<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(identify(request).and_then(|identity| match identity.role {
            Role::Admin => Ok(Self(identity)),
            Role::Buyer => Err(Error::Forbidden),
        }))
    }
}

fn identify(request: &HttpRequest) -> Result<Identity> {
    let tokens = request
        .app_data::<web::Data<Tokens>>()
        .ok_or_else(|| Error::Internal("no token service is registered".to_owned()))?;
    let value = request.headers().get(header::AUTHORIZATION).ok_or(Error::Unauthorized)?;
    match value.as_bytes().split_at_checked(BEARER.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(BEARER.as_bytes()) => {
            tokens.check(std::str::from_utf8(token.trim_ascii()).map_err(|_| Error::Unauthorized)?)
        }
        _ => Err(Error::Unauthorized),
    }
}

/// The scheme of a token, in any case.
const BEARER: &str = "Bearer ";

/// Proxies that are believed when they say whom a request comes from.
pub struct TrustedProxies(pub Vec<IpAddr>);

/// Where a request comes from: the last address on its way that is not a trusted proxy.
pub struct ClientAddress(pub IpAddr);

impl FromRequest for ClientAddress {
    type Error = Error;
    type Future = Ready<Result<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let trusted = request.app_data::<web::Data<TrustedProxies>>().map_or(&[][..], |proxies| &proxies.0);
        let forwarded = request.headers().get_all("x-forwarded-for").filter_map(|value| value.to_str().ok());
        ready(Ok(Self(client_address(peer, forwarded, trusted))))
    }
}

/// Each proxy appends the address it was called from, so the list is read from its end; what stands before an address
/// that is not trusted is anybody's word.
fn client_address<'a>(peer: IpAddr, forwarded: impl Iterator<Item = &'a str>, trusted: &[IpAddr]) -> IpAddr {
    let listed: Vec<&str> = forwarded.flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut address = peer;
    for hop in listed.into_iter().rev() {
        match hop.parse() {
            Ok(before) if trusted.contains(&address) => address = before,
            _ => break,
        }
    }
    address
}

/// The `{id}` of the path, or, in a scope without patterns, what follows its beginning.
pub struct PathId<T>(pub T);

impl<T: FromStr<Err = &'static str>> FromRequest for PathId<T> {
    type Error = Error;
    type Future = Ready<Result<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let path = request.match_info();
        let id = path.get("id").unwrap_or_else(|| path.unprocessed().trim_start_matches('/'));
        ready(id.parse().map(Self).map_err(|problem| Error::Invalid(format!("id: {problem}"))))
    }
}

/// The query string. What is not known in it is ignored: links carry all sorts of marks. What is known is given once.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Params<T> {
    type Error = Error;
    type Future = Ready<Result<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let pairs = url::form_urlencoded::parse(request.query_string().as_bytes());
        let parsed = serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs));
        let refused = |error: serde_path_to_error::Error<serde::de::value::Error>| {
            invalid(error.path(), "query", &Complaint::of(&error.inner().to_string()))
        };
        ready(parsed.map(Self).map_err(refused))
    }
}

/// Refuses what was found at `path`, which is called `whole` at its top.
pub(super) fn invalid(path: &serde_path_to_error::Path, whole: &str, complaint: &Complaint) -> Error {
    let place = match (path.to_string().as_str(), &complaint.field) {
        // The path may end with the field that the complaint names.
        (path, Some(field)) if path == "." || path.split('.').next_back() == Some(field) => field.clone(),
        (path, Some(field)) => format!("{path}.{field}"),
        (".", None) => whole.to_owned(),
        (path, None) => path.to_owned(),
    };
    Error::Invalid(format!("{place}: {}", complaint.problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_say_where_a_request_comes_from() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let proxies = [ip("10.0.0.1"), ip("10.0.0.2")];
        let from = |peer: &str, forwarded: &[&str]| client_address(ip(peer), forwarded.iter().copied(), &proxies);
        assert_eq!(from("1.2.3.4", &["9.9.9.9"]), ip("1.2.3.4"), "nobody of ours");
        assert_eq!(from("10.0.0.1", &["9.9.9.9"]), ip("9.9.9.9"));
        assert_eq!(from("10.0.0.1", &["6.6.6.6, 9.9.9.9"]), ip("9.9.9.9"), "the first is the client's own word");
        assert_eq!(from("10.0.0.1", &["6.6.6.6, 9.9.9.9", "10.0.0.2"]), ip("9.9.9.9"), "two of ours in a row");
        assert_eq!(from("10.0.0.1", &["9.9.9.9, nonsense"]), ip("10.0.0.1"));
        assert_eq!(from("10.0.0.1", &[]), ip("10.0.0.1"));
    }
}
