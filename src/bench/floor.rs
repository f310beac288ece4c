//! F: what the machine and the HTTP server can do at most. The same JSON as a purchase, and no work.

use std::net::SocketAddr;

use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::json;

/// Serves `POST /floor` until the process is killed.
pub async fn serve(address: SocketAddr) -> Result<(), String> {
    let served = async {
        HttpServer::new(|| App::new().route("/floor", web::post().to(answer)))
            .disable_signals()
            .bind(address)?
            .run()
            .await
    };
    served.await.map_err(|error| format!("floor: {error}"))
}

async fn answer() -> HttpResponse {
    let order = "01a20799-a43b-74c9-8c43-fb2b85ca3f6e";
    let body = json!({"order_id": order, "product_id": 1, "status": "queued"});
    HttpResponse::Accepted().insert_header(("location", "/orders/01a20799-a43b-74c9-8c43-fb2b85ca3f6e")).json(body)
}
