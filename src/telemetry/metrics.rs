//! What Prometheus is told at `/metrics`. Times are in seconds, as its conventions ask.
//!
//! A counter is there from the start, at 0; a histogram of times knows only what succeeded, for a try that fails at once
//! would look excellent; a gauge that cannot be read is absent, never old.

mod labels;
mod payments;
mod process;
mod reading;
mod registered;
mod spans;
mod webhooks;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::time::Duration;

use foldhash::fast::RandomState;
use prometheus::core::Collector;
use prometheus::proto::Metric;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use self::labels::{CHANGES, LOG_INS, OUTCOMES, PUBLISH_FAILURES, TABLES};
pub use self::payments::PaymentMetrics;
pub use self::reading::{Reading, Readings};
use self::registered::registered;
pub use self::spans::SpanMetrics;
pub use self::webhooks::WebhookMetrics;
use crate::db::ErrorClass;

/// Bounds of the histograms' buckets.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Of the process, not of one application: errors are made where nobody holds the metrics.
static DATABASE_ERRORS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let name = Opts::new("seckill_database_errors_total", "Errors of the database by what they mean");
    let errors = IntCounterVec::new(name, &["class"]).expect("the name is well formed");
    ErrorClass::ALL.iter().for_each(|class| drop(errors.with_label_values(&[class.as_str()])));
    errors
});

/// Counts an error of the database where it is handled.
pub fn database_error(class: ErrorClass) {
    DATABASE_ERRORS.with_label_values(&[class.as_str()]).inc();
}

/// Of the process, as the errors.
static UNREADABLE_ROWS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let name = Opts::new("seckill_unreadable_rows_total", "Reads that found a row of the database that cannot be read");
    let rows = IntCounterVec::new(name, &["table"]).expect("the name is well formed");
    TABLES.iter().for_each(|table| drop(rows.with_label_values(&[table])));
    rows
});

/// Counts a row that cannot be read, each time that it is found.
pub fn unreadable_row(table: &str) {
    UNREADABLE_ROWS.with_label_values(&[table]).inc();
}

/// The metrics of one application.
pub struct Metrics {
    registry: Registry,
    requests: HistogramVec,
    purchases: IntCounterVec,
    /// The two outcomes of a sale that come by the ten thousand.
    accepted: IntCounter,
    sold_out: IntCounter,
    /// Time of one step at the gate.
    pub gate_seconds: Histogram,
    /// From a publish to its confirm.
    pub publish_seconds: Histogram,
    /// Time to decide a write batch in the database.
    pub commit_seconds: Histogram,
    /// Write batches that could not be decided; each is tried again.
    pub commit_failures: IntCounter,
    /// Messages that were not confirmed, by why.
    pub publish_failures: IntCounterVec,
    /// Steps at the gate that failed.
    pub gate_failures: IntCounter,
    /// Purchases that became live orders.
    pub orders_written: IntCounter,
    /// Purchases that became rejected orders.
    pub orders_rejected: IntCounter,
    /// Orders that changed, by what they became.
    order_changes: IntCounterVec,
    /// Purchases that the sweeper decided because nobody else had.
    pub swept: IntCounter,
    /// Gates of which this instance began a new epoch.
    pub rebuilds: IntCounter,
    /// Gates of ended sales that this instance took away.
    pub gates_retired: IntCounter,
    /// 1: this instance uses the Redis and the queue of its deployment.
    pub deployment_agrees: IntGauge,
    /// Servers that keep gates and cannot be used.
    pub gate_servers_down: IntGauge,
    /// Open gates that were found to be older than the database says.
    pub deposed_gates: IntCounter,
    /// Panics that a consumer survived.
    pub consumer_panics: IntCounter,
    /// Gates that this instance is rebuilding.
    pub rebuilding: IntGauge,
    listeners: IntGaugeVec,
    /// What is looked at now and then.
    pub readings: Readings,
    /// Whether what we depend on can be used.
    dependency_up: IntGaugeVec,
    build_info: IntGaugeVec,
    database_connections: IntGaugeVec,
    /// Failures of background tasks, by task; each is followed by a restart.
    pub task_restarts: IntCounterVec,
    log_ins: IntCounterVec,
    /// Payments and callbacks.
    pub payments: PaymentMetrics,
    /// What the shop is told.
    pub webhooks: WebhookMetrics,
    /// Spans of traces.
    pub spans: SpanMetrics,
}

/// State of the pool of database connections.
#[derive(Debug, Clone, Copy)]
pub struct PoolUse {
    /// Open connections that are idle.
    pub idle: usize,
    /// Open connections that are used.
    pub used: usize,
    /// Tasks that wait for one.
    pub waiting: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All of them at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name, help| registered(&registry, IntCounter::new(name, help));
        let labelled = |name: &str, help: &str, label: &str, values: &[&str]| {
            register_labelled(&registry, Opts::new(name, help), label, values)
        };
        let histogram = |name, help| registered(&registry, Histogram::with_opts(seconds(name, help)));
        let gauge = |name, help| registered(&registry, IntGauge::new(name, help));
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        register_of_process(&registry);
        let purchases = labelled("seckill_purchases_total", "Clicks by what they were answered", "outcome", &OUTCOMES);
        Self {
            accepted: purchases.with_label_values(&["accepted"]),
            sold_out: purchases.with_label_values(&["sold_out"]),
            purchases,
            requests: register_requests(&registry),
            gate_seconds: histogram("seckill_gate_step_seconds", "Time of one step at the gate"),
            publish_seconds: histogram("seckill_publish_seconds", "From a publish to its confirm"),
            commit_seconds: histogram("seckill_commit_seconds", "Time to decide a write batch"),
            commit_failures: counter("seckill_commit_failures_total", "Write batches that could not be decided"),
            publish_failures: labelled(
                "seckill_publish_failures_total",
                "Messages that were not confirmed",
                "reason",
                &PUBLISH_FAILURES,
            ),
            gate_failures: counter("seckill_gate_failures_total", "Steps at the gate that failed"),
            orders_written: counter("seckill_orders_written_total", "Purchases that became live orders"),
            orders_rejected: counter("seckill_orders_rejected_total", "Purchases that became rejected orders"),
            order_changes: labelled("seckill_order_changes_total", "Orders that changed", "to", &CHANGES),
            swept: counter("seckill_swept_purchases_total", "Purchases decided by the sweeper"),
            rebuilds: counter("seckill_gate_rebuilds_total", "Gates of which a new epoch was begun"),
            gates_retired: counter(
                "seckill_gates_retired_total",
                "Gates that were taken away because their sale had ended long ago",
            ),
            deployment_agrees: gauge(
                "seckill_deployment_agrees",
                "1: this instance uses the Redis and the queue of its deployment",
            ),
            gate_servers_down: gauge(
                "seckill_gate_servers_down",
                "Servers that keep gates and cannot be used: 1 of Redis, or masters of a Redis Cluster",
            ),
            deposed_gates: counter(
                "seckill_deposed_gates_total",
                "Open gates that were found to be older than the database says",
            ),
            consumer_panics: counter("seckill_consumer_panics_total", "Panics that a consumer survived"),
            rebuilding: gauge("seckill_gates_rebuilding", "Gates that this instance is rebuilding"),
            listeners: gauges("seckill_listeners", "Connections that listen to live events", &["to"]),
            readings: Readings::register(&registry),
            dependency_up: gauges(
                "seckill_dependency_up",
                "Whether what the sale depends on can be used: 1 or 0",
                &["dependency"],
            ),
            build_info: gauges("seckill_build_info", "Version and backend", &["version", "backend"]),
            database_connections: gauges(
                "seckill_database_connections",
                "Pooled connections; waiting: tasks without one",
                &["state"],
            ),
            task_restarts: labelled(
                "seckill_task_restarts_total",
                "Background tasks that failed and were started again",
                "task",
                &[],
            ),
            payments: PaymentMetrics::register(&registry),
            webhooks: WebhookMetrics::register(&registry),
            spans: SpanMetrics::register(&registry),
            log_ins: labelled("seckill_log_ins_total", "Log-ins by what they came to", "outcome", &LOG_INS),
            registry,
        }
    }

    /// Counts a log-in: one of `LOG_INS`.
    pub fn log_in(&self, outcome: &str) {
        self.log_ins.with_label_values(&[outcome]).inc();
    }

    /// Counts orders that became `to`: one of `CHANGES`.
    pub fn orders_changed(&self, to: &str, orders: usize) {
        self.order_changes.with_label_values(&[to]).inc_by(orders as u64);
    }

    /// For the requests of one HTTP worker.
    pub fn of_worker(&self) -> RequestMetrics {
        RequestMetrics { all: self.requests.clone(), used: RefCell::default() }
    }

    /// Counts a click: `accepted`, or the code of its refusal.
    pub fn purchase(&self, outcome: &str) {
        match outcome {
            "accepted" => self.accepted.inc(),
            "sold_out" => self.sold_out.inc(),
            outcome => self.purchases.with_label_values(&[outcome]).inc(),
        }
    }

    /// Clicks by what they were answered.
    pub fn clicks(&self) -> BTreeMap<String, u64> {
        let families = self.purchases.collect();
        let clicks = families.iter().flat_map(|family| family.get_metric());
        let click = |metric: &Metric| {
            let outcome = metric.get_label().first().map(|label| label.value().to_owned());
            (outcome.unwrap_or_default(), metric.get_counter().get_value() as u64)
        };
        clicks.map(click).collect()
    }

    /// Notes what runs.
    pub fn build(&self, backend: &str) {
        self.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), backend]).set(1);
    }

    /// Notes whether something we depend on can be used.
    pub fn dependency(&self, name: &str, up: bool) {
        self.dependency_up.with_label_values(&[name]).set(up.into());
    }

    /// Notes how many listen to events of products or of orders.
    pub fn listeners(&self, to: &str, listeners: usize) {
        self.listeners.with_label_values(&[to]).set(listeners as i64);
    }

    /// Notes the state of the pool.
    pub fn pool(&self, pool: PoolUse) {
        for (state, count) in [("idle", pool.idle), ("used", pool.used), ("waiting", pool.waiting)] {
            self.database_connections.with_label_values(&[state]).set(count as i64);
        }
    }

    /// All of them in the text format.
    pub fn render(&self) -> Result<String, String> {
        TextEncoder::new().encode_to_string(&self.registry.gather()).map_err(|error| error.to_string())
    }
}

fn seconds(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(SECONDS.to_vec())
}

/// A counter for each value of the label, of those that are known from the start.
fn register_labelled(registry: &Registry, name: Opts, label: &str, values: &[&str]) -> IntCounterVec {
    let counters = registered(registry, IntCounterVec::new(name, &[label]));
    values.iter().for_each(|value| drop(counters.with_label_values(&[value])));
    counters
}

fn register_requests(registry: &Registry) -> HistogramVec {
    let name = seconds("http_request_duration_seconds", "Time to answer requests");
    registered(registry, HistogramVec::new(name, &["method", "route", "status"]))
}

/// What all applications of a process have in common.
fn register_of_process(registry: &Registry) {
    registered(registry, Ok(DATABASE_ERRORS.clone()));
    registered(registry, Ok(UNREADABLE_ROWS.clone()));
    process::register(registry).expect("the names of the process's metrics are well formed");
}

/// The requests of one HTTP worker: it keeps the histograms it has used, so that it need not find them behind a lock that
/// all workers share.
pub struct RequestMetrics {
    all: HistogramVec,
    used: RefCell<HashMap<RequestKind, Histogram, RandomState>>,
}

/// Where the texts of method and route are, which is quicker to look up than what they say, and the status.
type RequestKind = (*const u8, *const u8, u16);

impl RequestMetrics {
    /// Counts a request.
    pub fn count(&self, method: &'static str, route: &'static str, status: u16, took: Duration) {
        let find = || {
            let mut buffer = [0; 3];
            self.all.with_label_values(&[method, route, three_digits(status, &mut buffer)])
        };
        let kind = (method.as_ptr(), route.as_ptr(), status);
        self.used.borrow_mut().entry(kind).or_insert_with(find).observe(took.as_secs_f64());
    }
}

fn three_digits(status: u16, buffer: &mut [u8; 3]) -> &str {
    *buffer = [status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
    std::str::from_utf8(buffer).unwrap_or("000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.purchase("accepted");
        metrics.of_worker().count("POST", "/seckill/{id}", 202, Duration::from_millis(3));
        metrics.pool(PoolUse { idle: 1, used: 2, waiting: 0 });
        let text = metrics.render().unwrap();
        for line in [
            r#"seckill_purchases_total{outcome="accepted"} 1"#,
            r#"http_request_duration_seconds_bucket{method="POST",route="/seckill/{id}",status="202",le="0.005"} 1"#,
            r#"http_request_duration_seconds_bucket{method="POST",route="/seckill/{id}",status="202",le="0.0025"} 0"#,
            r#"seckill_database_connections{state="used"} 2"#,
            r#"seckill_purchases_total{outcome="internal"} 0"#,
            r#"seckill_publish_failures_total{reason="unclear"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("\nseckill_drift_units "), "nobody has looked yet\n{text}");
    }

    #[test]
    fn what_cannot_be_read_is_not_shown() {
        let metrics = Metrics::new();
        metrics.readings.drift_units.set(0.0);
        assert!(metrics.render().unwrap().contains("\nseckill_drift_units 0\n"));
        metrics.readings.drift_units.unknown();
        assert!(!metrics.render().unwrap().contains("seckill_drift_units"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_says_what_it_takes() {
        let text = Metrics::new().render().unwrap();
        let value = |name: &str| -> f64 {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).expect(name)
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
        assert!((now - 3600.0..=now + 2.0).contains(&value("process_start_time_seconds")));
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
