//! The pages of buyers and of merchants: the files of `web/built/`, which are in the program. `scripts/web build` makes them of the rest
//! of `web/`.
//!
//! A page names what it loads by a hash of all files together, so a browser keeps that for good and never mixes two versions. Nothing in
//! a page depends on who asks. A debug build reads the files at each request.

use std::collections::HashMap;
use std::sync::LazyLock;

use actix_web::http::header::{self, ETag, EntityTag, HeaderName};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use flate2::Compression;
use rust_embed::Embed;
use sha2::{Digest, Sha256};

use super::extract::body::{accepts_gzip, gzip};
use super::extract::has_already;
use crate::error::{Error, Result};

#[derive(Embed)]
#[folder = "web/built/"]
struct Web;

/// What the hash replaces in a page.
const PLACEHOLDER: &str = "{{assets}}";
/// In place of the hash where files are read at each request.
const UNHASHED: &str = "development";
const HASH_CHARACTERS: usize = 12;
/// Nothing is loaded from elsewhere but pictures of products, nothing runs that is not a file of ours, and nobody frames a page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https: data:; \
    connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// A file as it is sent.
struct File {
    content_type: &'static str,
    /// For those who have it already; the compressed one is another.
    tag: String,
    bytes: Bytes,
    /// `None`: it would not be smaller.
    gzip: Option<Bytes>,
}

/// What is in the program.
struct Site {
    hash: String,
    files: HashMap<String, File>,
}

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let mut paths: Vec<_> = Web::iter().collect();
    paths.sort();
    let mut all = Sha256::new();
    for path in &paths {
        all.update(path.as_bytes());
        all.update(Web::get(path).map(|file| file.metadata.sha256_hash()).unwrap_or_default());
    }
    let mut hash = hex(&all.finalize());
    hash.truncate(HASH_CHARACTERS);
    let file = |path: &str| Some((path.to_owned(), File::read(path, &hash)?));
    let files = paths.iter().filter_map(|path| file(path)).collect();
    Site { hash, files }
});

impl File {
    fn read(path: &str, hash: &str) -> Option<Self> {
        let found = Web::get(path)?;
        let (content_type, is_text) = content_type(path);
        let bytes: Bytes = match std::str::from_utf8(&found.data) {
            Ok(page) if is_page(path) => page.replace(PLACEHOLDER, hash).into(),
            _ => found.data.into_owned().into(),
        };
        let mut tag = hex(&Sha256::digest(&bytes));
        tag.truncate(HASH_CHARACTERS);
        // As small as it gets: it is done once.
        let gzip = is_text.then(|| gzip(&bytes, Compression::best())).filter(|gzip| gzip.len() < bytes.len());
        Some(Self { content_type, tag, bytes, gzip })
    }

    fn reply(&self, request: &HttpRequest, caching: &'static str) -> HttpResponse {
        let gzip = self.gzip.as_ref().filter(|_| accepts_gzip(request));
        let tag = EntityTag::new_weak(if gzip.is_some() { format!("{}-gzip", self.tag) } else { self.tag.clone() });
        let is_known = has_already(request, &tag);
        let mut reply = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
        reply.insert_header(ETag(tag)).insert_header((header::CACHE_CONTROL, caching));
        reply.insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
        reply.append_header((header::VARY, "Accept-Encoding"));
        if is_known {
            return reply.finish();
        }
        reply.content_type(self.content_type);
        match gzip {
            Some(gzip) => reply.insert_header((header::CONTENT_ENCODING, "gzip")).body(gzip.clone()),
            None => reply.body(self.bytes.clone()),
        }
    }
}

/// Replies with a file of this hash, or with what there is now: whoever has loaded a page from an instance of another version, which is
/// being replaced, needs its files all the same.
fn file(request: &HttpRequest, path: &str, hash: &str) -> Result<HttpResponse> {
    if cfg!(debug_assertions) {
        return Ok(File::read(path, UNHASHED).ok_or(Error::NotFound)?.reply(request, "no-cache"));
    }
    let file = SITE.files.get(path).ok_or(Error::NotFound)?;
    let is_kept = hash == SITE.hash && !is_page(path);
    Ok(file.reply(request, if is_kept { "public, max-age=31536000, immutable" } else { "no-cache" }))
}

pub(super) async fn asset(request: HttpRequest) -> Result<HttpResponse> {
    let part = |name| request.match_info().get(name).unwrap_or_default();
    let (hash, path) = (part("hash"), part("path"));
    if is_page(path) {
        return Err(Error::NotFound);
    }
    file(&request, path, hash)
}

/// The way to the shop, for whoever knows the host alone.
pub(super) async fn front_door() -> HttpResponse {
    HttpResponse::Found()
        .insert_header((header::LOCATION, "/shop"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .finish()
}

pub(super) async fn shop(request: HttpRequest) -> Result<HttpResponse> {
    page(&request, "shop.html")
}

pub(super) async fn console(request: HttpRequest) -> Result<HttpResponse> {
    page(&request, "console.html")
}

fn page(request: &HttpRequest, path: &str) -> Result<HttpResponse> {
    let mut reply = file(request, path, "")?;
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
        (PERMISSIONS_POLICY, "camera=(), geolocation=(), microphone=(), payment=()"),
    ] {
        reply.headers_mut().insert(name, header::HeaderValue::from_static(value));
    }
    Ok(reply)
}

fn is_page(path: &str) -> bool {
    path.ends_with(".html")
}

/// By its name; true: a text.
fn content_type(path: &str) -> (&'static str, bool) {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => ("text/html; charset=utf-8", true),
        Some("js") => ("text/javascript; charset=utf-8", true),
        Some("css") => ("text/css; charset=utf-8", true),
        Some("svg") => ("image/svg+xml", true),
        Some("json" | "webmanifest") => ("application/json", true),
        Some("png") => ("image/png", false),
        Some("woff2") => ("font/woff2", false),
        _ => ("application/octet-stream", false),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_its_files_by_their_hash_and_each_of_them_is_there() {
        let mut named = 0;
        for page in ["shop.html", "console.html"] {
            let file = File::read(page, &SITE.hash).unwrap();
            let text = std::str::from_utf8(&file.bytes).unwrap();
            assert!(!text.contains("{{"), "{page}");
            for part in text.split("/assets/").skip(1) {
                let path = part.split('"').next().unwrap();
                let path = path.strip_prefix(&format!("{}/", SITE.hash)).unwrap();
                assert!(Web::get(path).is_some(), "{page} names {path}");
                named += 1;
            }
        }
        assert!(named > 4, "{named}");
    }

    #[test]
    fn every_file_has_a_type() {
        for path in Web::iter() {
            assert_ne!(content_type(&path).0, "application/octet-stream", "{path}");
        }
    }
}
