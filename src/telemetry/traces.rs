//! Traces: some requests and purchases, and what each of their steps took, for an OpenTelemetry collector.
//!
//! Where traces are off there is no [`Traces`], and a request that is not sampled has no [`Span`]: neither costs anything more than
//! the question. A purchase goes with many others through one step at the gate, one message and one transaction, so its spans are made
//! afterwards, of the times that the step has noted, and not by whoever happens to run it.

mod export;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample,
    SpanData, SpanEvents, SpanLinks, SpanProcessor,
};

pub use opentelemetry::trace::SpanKind;

use self::export::Exporter;
use super::metrics::{Metrics, SpanMetrics};
use crate::config;
use crate::model::TraceParent;

/// Spans that wait for the collector, or are on their way to it, at most. One more is dropped.
const MAX_WAITING: usize = 2048;
/// Spans that are sent together at most.
const MAX_BATCH: usize = 512;
/// Between two looks for spans to send.
const PAUSE: Duration = Duration::from_secs(1);
/// A stop waits so long until the collector has taken what is left.
const STOP_PATIENCE: Duration = Duration::from_millis(1500);

/// See the module.
pub struct Traces {
    spans: BatchSpanProcessor,
    /// Spans that are neither exported nor failed yet.
    waiting: Arc<AtomicUsize>,
    ids: RandomIdGenerator,
    sampler: Sampler,
    scope: InstrumentationScope,
    metrics: SpanMetrics,
}

/// A place in a trace that is recorded: what happens next is caused by its span.
#[derive(Clone)]
pub struct Trace {
    traces: Arc<Traces>,
    trace_id: TraceId,
    span_id: SpanId,
    /// Whether that span is another process's.
    is_remote: bool,
    clock: Clock,
}

/// A step that is recorded. One that is never ended is never exported.
pub struct Span {
    traces: Arc<Traces>,
    data: SpanData,
    clock: Clock,
}

/// One moment by both clocks. All times of a process in one trace are counted from one such moment, so that a clock that is set
/// meanwhile puts none of them before its cause.
#[derive(Clone, Copy)]
struct Clock {
    wall: SystemTime,
    instant: Instant,
}

impl Traces {
    /// Of one request to the collector, for who makes the client.
    pub const TIMEOUT: Duration = Duration::from_secs(5);

    /// Sends to the collector of `settings` with `http`; `None`: traces are off.
    pub fn open(
        settings: &config::Traces,
        http: ureq::Agent,
        instance: &str,
        metrics: &Metrics,
    ) -> Result<Option<Arc<Self>>, String> {
        let Some(url) = settings.url() else { return Ok(None) };
        let (waiting, metrics) = (Arc::new(AtomicUsize::new(0)), metrics.spans.clone());
        let exporter = Exporter::new(url, settings.header_list()?, http, waiting.clone(), metrics.clone())?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(MAX_WAITING)
            .with_max_export_batch_size(MAX_BATCH)
            .with_scheduled_delay(PAUSE)
            .build();
        let mut spans = BatchSpanProcessor::new(exporter, batches);
        // With what OTEL_RESOURCE_ATTRIBUTES adds.
        let resource = Resource::builder().with_service_name("seckill").with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ]);
        spans.set_resource(&resource.build());
        let scope = InstrumentationScope::builder("seckill").with_version(env!("CARGO_PKG_VERSION")).build();
        let sampler = Sampler::TraceIdRatioBased(settings.sample_ratio);
        Ok(Some(Arc::new(Self { spans, waiting, ids: RandomIdGenerator::default(), sampler, scope, metrics })))
    }

    /// Begins the span of a request, if it is sampled. `parent` is what the request says of its trace; whether that is recorded
    /// is believed only of a caller that `is_trusted`.
    ///
    /// Otherwise our own ratio decides, by an id that is drawn here: a stranger could choose one that is always sampled.
    pub fn begin(self: &Arc<Self>, parent: Option<TraceParent>, is_trusted: bool, name: &'static str) -> Option<Span> {
        let drawn = self.ids.new_trace_id();
        let is_sampled = match parent {
            Some(parent) if is_trusted => parent.sampled,
            _ => self.samples(drawn),
        };
        is_sampled.then(|| {
            let clock = Clock::now();
            let (trace_id, parent) = match parent {
                Some(TraceParent { trace_id, span_id, .. }) => (TraceId::from(trace_id), SpanId::from(span_id)),
                None => (drawn, SpanId::INVALID),
            };
            self.span(trace_id, (parent, true), SpanKind::Server, name, (clock, clock.instant))
        })
    }

    /// Goes on with a trace that another part of the way has begun to record.
    pub fn resume(self: &Arc<Self>, parent: TraceParent) -> Trace {
        let (trace_id, span_id) = (TraceId::from(parent.trace_id), SpanId::from(parent.span_id));
        Trace { traces: self.clone(), trace_id, span_id, is_remote: true, clock: Clock::now() }
    }

    fn samples(&self, id: TraceId) -> bool {
        let sampled = self.sampler.should_sample(None, id, "", &SpanKind::Server, &[], &[]);
        sampled.decision == SamplingDecision::RecordAndSample
    }

    fn span(
        self: &Arc<Self>,
        trace_id: TraceId,
        (parent_span_id, parent_is_remote): (SpanId, bool),
        span_kind: SpanKind,
        name: &'static str,
        (clock, begun): (Clock, Instant),
    ) -> Span {
        let span_id = self.ids.new_span_id();
        let start_time = clock.at(begun);
        let data = SpanData {
            span_context: SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id,
            parent_span_is_remote: parent_is_remote && parent_span_id != SpanId::INVALID,
            span_kind,
            name: Cow::Borrowed(name),
            start_time,
            end_time: start_time,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        };
        Span { traces: self.clone(), data, clock }
    }

    /// Sends what is left, for a second and a half at most.
    pub async fn stop(self: Arc<Self>) {
        // Whether it succeeded is counted, and said, where it was tried.
        let _ = tokio::task::spawn_blocking(move || self.spans.shutdown_with_timeout(STOP_PATIENCE)).await;
    }
}

impl Trace {
    /// Begins a step that this place in the trace has caused.
    pub fn span(&self, kind: SpanKind, name: &'static str, begun: Instant) -> Span {
        self.traces.span(self.trace_id, (self.span_id, self.is_remote), kind, name, (self.clock, begun))
    }
}

impl Span {
    /// What this step causes, in this process.
    pub fn trace(&self) -> Trace {
        let (trace_id, span_id) = (self.data.span_context.trace_id(), self.data.span_context.span_id());
        Trace { traces: self.traces.clone(), trace_id, span_id, is_remote: false, clock: self.clock }
    }

    /// The same, for another process.
    pub fn parent(&self) -> TraceParent {
        let context = &self.data.span_context;
        let (trace_id, span_id) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
        TraceParent { trace_id: u128::from_be_bytes(trace_id), span_id: u64::from_be_bytes(span_id), sampled: true }
    }

    /// Names it anew.
    pub fn rename(&mut self, name: String) {
        self.data.name = Cow::Owned(name);
    }

    /// Notes something of it.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.data.attributes.push(KeyValue::new(key, value));
    }

    /// Notes that it failed; `class` is a word of few, `problem` is for people.
    pub fn fail(&mut self, class: impl Into<Value>, problem: impl fmt::Display) {
        self.set("error.type", class);
        self.data.status = Status::error(problem.to_string());
    }

    /// It is over, and goes to the collector; or nowhere, if too many wait for it.
    pub fn end(self, at: Instant) {
        let Self { traces, mut data, clock } = self;
        data.end_time = clock.at(at);
        if traces.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            traces.waiting.fetch_sub(1, Ordering::Relaxed);
            traces.metrics.dropped.inc();
            return;
        }
        traces.spans.on_end(data);
    }
}

impl Clock {
    fn now() -> Self {
        Self { wall: SystemTime::now(), instant: Instant::now() }
    }

    fn at(self, instant: Instant) -> SystemTime {
        match instant.checked_duration_since(self.instant) {
            Some(later) => self.wall + later,
            None => self.wall - self.instant.duration_since(instant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(sample_ratio: f64) -> Arc<Traces> {
        // Nobody listens there.
        let endpoint = "http://127.0.0.1:9".to_owned();
        let settings = config::Traces { endpoint, sample_ratio, headers: String::new().into() };
        Traces::open(&settings, ureq::Agent::new_with_defaults(), "one", &Metrics::new()).unwrap().unwrap()
    }

    fn parent(sampled: bool) -> Option<TraceParent> {
        // Always sampled by its id.
        Some(TraceParent { trace_id: 1, span_id: 2, sampled })
    }

    #[test]
    fn there_are_no_traces_without_an_endpoint() {
        let settings = config::Traces { endpoint: String::new(), sample_ratio: 1.0, headers: String::new().into() };
        let opened = Traces::open(&settings, ureq::Agent::new_with_defaults(), "one", &Metrics::new());
        assert!(opened.is_ok_and(|traces| traces.is_none()));
    }

    #[test]
    fn only_a_trusted_caller_says_whether_its_trace_is_recorded() {
        let (all, none) = (traces(1.0), traces(0.0));
        for (traces, parent, is_trusted, expected) in [
            (&all, None, false, true),
            (&none, None, true, false),
            (&none, parent(true), true, true),
            (&all, parent(false), true, false),
            (&none, parent(true), false, false),
            (&all, parent(false), false, true),
        ] {
            assert_eq!(traces.begin(parent, is_trusted, "").is_some(), expected, "{parent:?} {is_trusted}");
        }
    }

    /// Guards against: a ratio that is asked of an id which the caller has chosen.
    #[test]
    fn the_ratio_holds_whatever_id_a_stranger_sends() {
        let tenth = traces(0.1);
        let sampled = (0..10_000).filter(|_| tenth.begin(parent(true), false, "").is_some()).count();
        assert!((800..1200).contains(&sampled), "{sampled}");
    }

    #[test]
    fn a_span_goes_on_with_the_trace_it_is_given() {
        let all = traces(1.0);
        let server = all.begin(parent(true), true, "server").unwrap();
        let child = server.trace().span(SpanKind::Internal, "child", Instant::now());
        assert_eq!((server.data.parent_span_id, child.data.parent_span_id), (2.into(), server.parent().span_id.into()));
        assert_eq!((server.data.parent_span_is_remote, child.data.parent_span_is_remote), (true, false));
        assert_eq!((server.parent().trace_id, child.parent().trace_id), (1, 1));
        let resumed = all.resume(child.parent()).span(SpanKind::Consumer, "resumed", Instant::now());
        assert_eq!((resumed.data.parent_span_id, resumed.parent().trace_id), (child.parent().span_id.into(), 1));
        assert!(resumed.data.parent_span_is_remote);
        let root = all.begin(None, true, "root").unwrap();
        assert!(root.data.parent_span_id == SpanId::INVALID && !root.data.parent_span_is_remote);
    }

    #[test]
    fn times_before_and_after_the_clock_was_read_are_in_order() {
        let clock = Clock::now();
        let second = Duration::from_secs(1);
        assert_eq!(clock.at(clock.instant), clock.wall);
        assert_eq!(clock.at(clock.instant + second), clock.wall + second);
        let before = clock.instant.checked_sub(second).unwrap();
        assert_eq!(clock.at(before), clock.wall - second);
    }

    #[test]
    fn more_than_may_wait_are_dropped_and_counted() {
        let all = traces(1.0);
        all.waiting.store(MAX_WAITING, Ordering::Relaxed);
        all.begin(None, false, "one too many").unwrap().end(Instant::now());
        assert_eq!((all.metrics.dropped.get(), all.waiting.load(Ordering::Relaxed)), (1, MAX_WAITING));
    }
}
