//! F: what the machine and the HTTP server can do at most. Small JSON in, the JSON of a purchase out, and no work.

use std::net::SocketAddr;

use actix_web::{App, HttpResponse, HttpServer, web};
use serde::{Deserialize, Serialize};

/// Serves `POST /baseline` until the process is killed.
pub(super) async fn serve(address: SocketAddr) -> Result<(), String> {
    let served = async {
        HttpServer::new(|| App::new().route("/baseline", web::post().to(answer)))
            .disable_signals()
            .bind(address)?
            .run()
            .await
    };
    served.await.map_err(|error| format!("baseline: {error}"))
}

/// A request to it.
pub(super) const BODY: &str = r#"{"user_id":1,"product_id":1}"#;

#[derive(Deserialize)]
struct Click {
    user_id: i64,
    product_id: i64,
}

#[derive(Serialize)]
struct Reply {
    order_id: &'static str,
    product_id: i64,
    status: &'static str,
}

async fn answer(click: web::Json<Click>) -> HttpResponse {
    let reply = Reply {
        order_id: "01a20799-a43b-74c9-8c43-fb2b85ca3f6e",
        product_id: click.product_id,
        status: if click.user_id > 0 { "queued" } else { "rejected" },
    };
    HttpResponse::Accepted().insert_header(("location", "/orders/01a20799-a43b-74c9-8c43-fb2b85ca3f6e")).json(reply)
}
