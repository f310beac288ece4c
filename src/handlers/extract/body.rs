//! Bodies of requests: JSON objects of 64 KiB at most, as they are or compressed by gzip.

use std::io::Read;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpRequest, web};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use futures_util::future::{Either, LocalBoxFuture, Ready, ready};
use serde::de::DeserializeOwned;

use crate::complaint;
use crate::error::{Error, Result};

/// A body may be this large, also after it is decompressed.
pub(in crate::handlers) const BODY_MAX_BYTES: usize = 64 * 1024;

/// A body must have arrived by then.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body that nobody reads, but that must not be too large either.
pub struct UnreadBody;

impl FromRequest for UnreadBody {
    type Error = Error;
    type Future = Ready<Result<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let length = length.and_then(|length| length.parse::<usize>().ok()).unwrap_or(0);
        ready(if length <= BODY_MAX_BYTES { Ok(Self) } else { Err(Error::PayloadTooLarge) })
    }
}

/// A JSON object, or none: then it is the default.
pub struct OptionalBody<T>(pub T);

impl<T: DeserializeOwned + Default + 'static> FromRequest for OptionalBody<T> {
    type Error = Error;
    type Future = Either<Ready<Result<Self>>, LocalBoxFuture<'static, Result<Self>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let headers = request.headers();
        // Most requests are without: nothing is allocated for them.
        let is_empty = match headers.get(header::CONTENT_LENGTH) {
            Some(length) => length.as_bytes() == b"0",
            None => !headers.contains_key(header::TRANSFER_ENCODING),
        };
        if is_empty {
            return Either::Left(ready(Ok(Self(T::default()))));
        }
        let body = Body::from_request(request, payload);
        Either::Right(Box::pin(async move { body.await.map(|Body(value)| Self(value)) }))
    }
}

/// A body as it came, for who must see its very bytes.
pub struct RawBody(pub Bytes);

impl FromRequest for RawBody {
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let coding = coding(request);
        let bytes = web::Bytes::from_request(request, payload);
        Box::pin(async move {
            match coding? {
                Coding::Identity => arrived(bytes).await.map(Self),
                Coding::Gzip => Err(Error::UnsupportedEncoding),
            }
        })
    }
}

/// A JSON object.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Body<T> {
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let coding = check_type(request).and_then(|()| coding(request));
        let bytes = web::Bytes::from_request(request, payload);
        Box::pin(async move {
            let coding = coding?;
            let bytes = arrived(bytes).await?;
            match coding {
                Coding::Identity => parse(&bytes).map(Self),
                Coding::Gzip => parse(&decompress(&bytes)?).map(Self),
            }
        })
    }
}

async fn arrived(bytes: impl Future<Output = actix_web::Result<Bytes>>) -> Result<Bytes> {
    let slow = |_| Error::Invalid("body: did not arrive in time".to_owned());
    let bytes = tokio::time::timeout(BODY_TIMEOUT, bytes).await.map_err(slow)?;
    bytes.map_err(|error| match error.as_response_error().status_code().as_u16() {
        413 => Error::PayloadTooLarge,
        _ => Error::Invalid("body: could not be read to its end".to_owned()),
    })
}

#[derive(Debug, Clone, Copy)]
enum Coding {
    Identity,
    Gzip,
}

/// JSON, and no other charset than UTF-8; said once.
fn check_type(request: &HttpRequest) -> Result<()> {
    let mut types = request.headers().get_all(header::CONTENT_TYPE);
    let given = types.next().and_then(|value| value.to_str().ok()).ok_or(Error::UnsupportedMediaType)?;
    if types.next().is_some() {
        return Err(Error::Invalid("Content-Type: is given more than once".to_owned()));
    }
    let mut parts = given.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let is_utf8 = parts.filter_map(|part| part.split_once('=')).all(|(name, value)| {
        !name.trim().eq_ignore_ascii_case("charset") || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    if is_json && is_utf8 { Ok(()) } else { Err(Error::UnsupportedMediaType) }
}

fn coding(request: &HttpRequest) -> Result<Coding> {
    let Some(coding) = request.headers().get(header::CONTENT_ENCODING) else { return Ok(Coding::Identity) };
    match coding.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "identity" => Ok(Coding::Identity),
        "gzip" | "x-gzip" => Ok(Coding::Gzip),
        _ => Err(Error::UnsupportedEncoding),
    }
}

/// A few bytes can be the gzip of gigabytes, so it is read only as far as a body may go.
fn decompress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let most = BODY_MAX_BYTES as u64 + 1;
    let read = MultiGzDecoder::new(bytes).take(most).read_to_end(&mut body);
    read.map_err(|_| Error::Invalid("body: is not gzip".to_owned()))?;
    if body.len() > BODY_MAX_BYTES { Err(Error::PayloadTooLarge) } else { Ok(body) }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let refused = |problem: &str| Err(Error::Invalid(format!("body: {problem}")));
    // The deserializer would take a list for an object, its items for the fields in their order.
    match bytes.trim_ascii_start() {
        [] => return refused("is empty; it must be a JSON object"),
        [0xef, 0xbb, 0xbf, ..] => return refused("must not begin with a byte order mark"),
        [b'{', ..] => {}
        rest if serde_json::from_slice::<serde::de::IgnoredAny>(rest).is_ok() => {
            return refused("must be a JSON object");
        }
        _ => {}
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let top = serde_path_to_error::Track::new().path();
    let invalid = super::invalid;
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let problem = error.inner();
        // Where the text ends or stops making sense is no fault of a field.
        let path = if problem.is_data() { error.path() } else { &top };
        invalid(path, "body", &complaint::of_json(problem))
    })?;
    json.end().map_err(|error| invalid(&top, "body", &complaint::of_json(&error)))?;
    Ok(value)
}

/// How a reply is compressed for a client that asks for it.
pub(in crate::handlers) fn accepts_gzip(request: &HttpRequest) -> bool {
    let accepted = request.headers().get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    accepted.unwrap_or_default().split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
        is_gzip && weight > 0.0
    })
}

/// Compresses.
pub(in crate::handlers) fn gzip(bytes: &[u8], level: Compression) -> Bytes {
    let mut compressed = Vec::new();
    let read = flate2::read::GzEncoder::new(bytes, level).read_to_end(&mut compressed);
    if read.is_ok() { compressed.into() } else { Bytes::copy_from_slice(bytes) }
}
