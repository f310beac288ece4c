//! What handlers take from a request, with errors that name the field.

pub(in crate::handlers) mod body;

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header::{self, EntityTag, Header, HeaderName, IfMatch, IfNoneMatch};
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::FutureExt;
use futures_util::future::{Either, LocalBoxFuture, Ready, ready};
use serde::de::DeserializeOwned;

use super::state::AppState;
use crate::complaint::Complaint;
use crate::error::{Error, Result};
use crate::model::{Network, Role};
use crate::services::{Authenticator, Identification, Identity, Revisions, Session};

/// Whoever sends a valid token.
pub struct AuthenticatedUser(pub Identity);

impl FromRequest for AuthenticatedUser {
    type Error = Error;
    type Future = Identified<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        identify(request, |session| Ok(Self(session.identity)))
    }
}

/// The same, with what a log-out must know.
pub struct SignedIn(pub Session);

impl FromRequest for SignedIn {
    type Error = Error;
    type Future = Identified<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        identify(request, |session| Ok(Self(session)))
    }
}

/// A caller who is an administrator.
pub struct Admin(pub Identity);

impl FromRequest for Admin {
    type Error = Error;
    type Future = Identified<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        identify(request, |session| match session.identity.role {
            Role::Admin => Ok(Self(session.identity)),
            Role::Buyer => Err(Error::Forbidden),
        })
    }
}

/// Known at once, as every buyer is with a token of ours, or after a look-up.
pub type Identified<T> = Either<Ready<Result<T>>, LocalBoxFuture<'static, Result<T>>>;

fn identify<T: 'static>(request: &HttpRequest, admit: fn(Session) -> Result<T>) -> Identified<T> {
    match token(request) {
        Ok((authenticator, token)) => match authenticator.identify(token) {
            Identification::Known(session) => Either::Left(ready(session.and_then(admit))),
            Identification::LookUp(session) => Either::Right(Box::pin(session.map(move |known| known.and_then(admit)))),
        },
        Err(error) => Either::Left(ready(Err(error))),
    }
}

fn token(request: &HttpRequest) -> Result<(&Arc<Authenticator>, &str)> {
    let state = state(request)?;
    let value = request.headers().get(header::AUTHORIZATION).ok_or(Error::Unauthorized)?;
    match value.as_bytes().split_at_checked(BEARER.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(BEARER.as_bytes()) => {
            Ok((&state.authenticator, std::str::from_utf8(token.trim_ascii()).map_err(|_| Error::Unauthorized)?))
        }
        _ => Err(Error::Unauthorized),
    }
}

fn state(request: &HttpRequest) -> Result<&web::Data<AppState>> {
    request.app_data().ok_or_else(|| Error::Internal("no services are registered".to_owned()))
}

/// Turns everybody away where nobody may register, whatever they send.
pub struct OpenRegistration;

impl FromRequest for OpenRegistration {
    type Error = Error;
    type Future = Ready<Result<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let open = state(request).is_ok_and(|state| state.accounts.registers());
        ready(if open { Ok(Self) } else { Err(Error::NotFound) })
    }
}

/// The scheme of a token, in any case.
const BEARER: &str = "Bearer ";

/// Who has connected, and from whom the request comes by its own account. Without an address the peer came through a Unix socket.
fn claimed_way(request: &HttpRequest) -> (Option<IpAddr>, Vec<&str>) {
    let forwarded = request.headers().get_all("x-forwarded-for").filter_map(|value| value.to_str().ok()).collect();
    (request.peer_addr().map(|peer| peer.ip().to_canonical()), forwarded)
}

/// Where a request comes from: the last address on its way that is not a trusted proxy.
pub struct ClientAddress(pub IpAddr);

impl FromRequest for ClientAddress {
    type Error = Error;
    type Future = Ready<Result<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let (peer, forwarded) = claimed_way(request);
        ready(state(request).map(|state| Self(state.trusted_proxies.client(peer, &forwarded))))
    }
}

/// Where a click comes from, as far as limits of an address are concerned.
pub struct Origin {
    /// The network; `None` where many may share one address.
    pub network: Option<Network>,
    /// Of a peer that says whom it speaks for, and is not believed: a proxy that nobody has named, or a liar.
    pub unnamed_proxy: Option<IpAddr>,
}

impl FromRequest for Origin {
    type Error = Error;
    type Future = Ready<Result<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(state(request).map(|state| {
            let (peer, forwarded) = claimed_way(request);
            let address = state.trusted_proxies.client(peer, &forwarded);
            // A proxy that says nothing of its client, this machine, and what came through a Unix socket stand for many.
            let is_shared = state.shared_addresses.contain(address)
                || state.trusted_proxies.trust(address)
                || address.is_loopback()
                || address.is_unspecified();
            let unnamed_proxy = peer.filter(|peer| !forwarded.is_empty() && !state.trusted_proxies.trust(*peer));
            Self { network: (!is_shared).then(|| Network::of(address)), unnamed_proxy }
        }))
    }
}

/// Whether the client has what this tag stands for.
pub(in crate::handlers) fn has_already(request: &HttpRequest, tag: &EntityTag) -> bool {
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(known)) => known.iter().any(|known| known.weak_eq(tag)),
        Err(_) => false,
    }
}

/// Which revisions a product must have for a change of it, by `If-Match`.
pub(in crate::handlers) fn if_match(request: &HttpRequest) -> Result<Revisions> {
    refuse(request, &header::IF_UNMODIFIED_SINCE)?;
    if !request.headers().contains_key(header::IF_MATCH) {
        return Ok(Revisions::Any);
    }
    let wrong = || Error::Invalid("if-match: takes the product's revision in quotes, such as \"3\", or *".to_owned());
    match IfMatch::parse(request).map_err(|_| wrong())? {
        IfMatch::Any => Ok(Revisions::Any),
        // No tag at all is a list that could not be read.
        IfMatch::Items(tags) if tags.is_empty() => Err(wrong()),
        // The tag of a page changes with each purchase, so it is weak, and no weak tag matches here.
        IfMatch::Items(tags) => {
            let revision = |tag: &EntityTag| (!tag.weak).then(|| tag.tag().parse().ok())?;
            tags.iter().map(revision).collect::<Option<_>>().map(Revisions::OneOf).ok_or_else(wrong)
        }
    }
}

/// A condition that would not be looked at must not seem to hold.
pub(in crate::handlers) fn without_condition(request: &HttpRequest) -> Result<()> {
    refuse(request, &header::IF_MATCH)?;
    refuse(request, &header::IF_UNMODIFIED_SINCE)
}

fn refuse(request: &HttpRequest, condition: &HeaderName) -> Result<()> {
    match request.headers().contains_key(condition) {
        true => Err(Error::Invalid(format!("{condition}: conditions are not supported here"))),
        false => Ok(()),
    }
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
pub(in crate::handlers) fn invalid(path: &serde_path_to_error::Path, whole: &str, complaint: &Complaint) -> Error {
    let place = match (path.to_string().as_str(), &complaint.field) {
        // The path may end with the field that the complaint names.
        (path, Some(field)) if path == "." || path.split('.').next_back() == Some(field) => field.clone(),
        (path, Some(field)) => format!("{path}.{field}"),
        (".", None) => whole.to_owned(),
        (path, None) => path.to_owned(),
    };
    Error::Invalid(format!("{place}: {}", complaint.problem))
}
