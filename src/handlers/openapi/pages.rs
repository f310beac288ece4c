//! `/docs`: Swagger UI, to read the document and to try it. Its files are in the program.

use std::io::Read;
use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use flate2::read::GzDecoder;
use utoipa_swagger_ui::{Config, serve};

use crate::error::{Error, Result};
use crate::handlers::extract::body::accepts_gzip;

/// Swagger UI sets styles from its script, and has pictures in its style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Leads to where relative addresses are right.
pub(in crate::handlers) async fn front_page() -> HttpResponse {
    HttpResponse::Found().insert_header((header::LOCATION, "/docs/")).finish()
}

pub(in crate::handlers) async fn page_file(request: HttpRequest) -> Result<HttpResponse> {
    let path = request.match_info().get("path").unwrap_or_default();
    let config = Config::from("/openapi.json").try_it_out_enabled(true).use_base_layout();
    let file = serve(path, Arc::new(config)).map_err(|error| Error::Internal(error.to_string()))?;
    let file = file.ok_or(Error::NotFound)?;
    let mut reply = HttpResponse::Ok();
    reply.content_type(file.content_type);
    reply.insert_header((header::CACHE_CONTROL, "no-cache"));
    reply.insert_header((header::CONTENT_SECURITY_POLICY, POLICY));
    reply.insert_header((header::REFERRER_POLICY, "no-referrer"));
    reply.insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    Ok(match file.gzpipped {
        true if accepts_gzip(&request) => {
            reply.insert_header((header::CONTENT_ENCODING, "gzip")).body(file.bytes.into_owned())
        }
        // It takes a while, so it is done where it holds up no click.
        true => {
            let compressed = file.bytes.into_owned();
            let unpack = move || {
                let mut plain = Vec::new();
                GzDecoder::new(&*compressed).read_to_end(&mut plain).map(|_| plain)
            };
            let plain = web::block(unpack).await.map_err(|error| Error::Internal(error.to_string()))?;
            reply.body(plain.map_err(|error| Error::Internal(error.to_string()))?)
        }
        false => reply.body(file.bytes.into_owned()),
    })
}
