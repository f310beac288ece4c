//! How spans get to the collector: as OTLP over HTTP, from a thread of the library's own, with our HTTP client.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SpanData;
use parking_lot::Mutex;

use super::Traces;
use crate::telemetry::SharedOutage;
use crate::telemetry::metrics::SpanMetrics;

/// What a collector answers is a few bytes; more is not read.
const MAX_ANSWER: u64 = 64 * 1024;
const ADVICE: &str = "does traces.endpoint lead to a collector that takes OTLP over HTTP? The sale goes on; its spans are lost meanwhile";

/// The library's exporter; counts what becomes of the spans, and says when it fails.
pub(super) struct Exporter {
    otlp: SpanExporter,
    waiting: Arc<AtomicUsize>,
    metrics: SpanMetrics,
    outage: SharedOutage,
    problem: LastProblem,
}

/// What was wrong with the last request: the library only says that something was.
type LastProblem = Arc<Mutex<Option<String>>>;

impl Exporter {
    pub(super) fn new(
        url: String,
        headers: Vec<(String, String)>,
        http: ureq::Agent,
        waiting: Arc<AtomicUsize>,
        metrics: SpanMetrics,
    ) -> Result<Self, String> {
        let problem = LastProblem::default();
        let otlp = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .with_timeout(Traces::TIMEOUT)
            .with_headers(headers.into_iter().collect())
            .with_http_client(Client { http, problem: problem.clone() })
            .build()
            .map_err(|error| error.to_string())?;
        let outage = SharedOutage::new("The collector does not take traces", "The collector takes traces again");
        Ok(Self { otlp, waiting, metrics, outage, problem })
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

impl opentelemetry_sdk::trace::SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.otlp.export(batch).await;
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        match &exported {
            Ok(()) => {
                self.metrics.exported.inc_by(spans as u64);
                self.outage.worked();
            }
            Err(error) => {
                self.metrics.failed.inc_by(spans as u64);
                let problem = self.problem.lock().take().unwrap_or_else(|| error.to_string());
                self.outage.failed("collector", &problem, ADVICE);
            }
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// Blocks the thread that exports, which has nothing else to do.
struct Client {
    http: ureq::Agent,
    problem: LastProblem,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (head, body) = request.into_parts();
        let (head, mut body) = self.http.run(Request::from_parts(head, &*body))?.into_parts();
        let answer = body.with_config().limit(MAX_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(head, answer.into()))
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.send(request);
        *self.problem.lock() = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        Ok(answer?)
    }
}
