//! Sends what was rendered once for many: compressed for those who take it, and not at all to those who have it.

use actix_web::http::header::{self, ContentType, ETag, EntityTag};
use actix_web::{HttpRequest, HttpResponse};
use flate2::Compression;

use super::extract::body::{accepts_gzip, gzip};
use super::extract::has_already;
use crate::services::RenderedPage;

/// Pages from this size on are compressed for those who take it.
const COMPRESSED_FROM_BYTES: usize = 1024;

/// A page, or 304 to a client that has it already.
pub(super) fn rendered(request: &HttpRequest, page: RenderedPage) -> HttpResponse {
    let is_gzip = page.json.len() >= COMPRESSED_FROM_BYTES && accepts_gzip(request);
    // Other bytes, so another tag.
    let tag = EntityTag::new_weak(if is_gzip { format!("{}-gzip", page.tag) } else { page.tag });
    let known = has_already(request, &tag);
    let mut reply = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    reply.insert_header(ETag(tag)).insert_header((header::CACHE_CONTROL, "no-cache"));
    reply.append_header((header::VARY, "Accept-Encoding"));
    if known {
        return reply.finish();
    }
    reply.content_type(ContentType::json());
    if is_gzip {
        let compressed = page.gzip.get_or_init(|| gzip(&page.json, Compression::fast())).clone();
        return reply.insert_header((header::CONTENT_ENCODING, "gzip")).body(compressed);
    }
    reply.body(page.json)
}
