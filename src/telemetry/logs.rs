//! Logging.

use std::fmt::Display;
use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Our own words from `info` on, those of the HTTP server from `warn` on. Requests that it cannot read are no errors of ours.
/// What a certificate lacks we say ourselves, once.
const DEFAULT_FILTER: &str = "info,actix_server=warn,actix_http::h1=off,rustls_platform_verifier=off";

/// Writes the log to standard error. `RUST_LOG` sets the levels.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // Fails only where a log is set up already, as in tests.
    let _ = match format {
        LogFormat::Text => log.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
}

/// Between the first two lines about the same trouble; each later pause is twice as long.
const OUTAGE_PAUSE: Duration = Duration::from_secs(5);
/// Between two lines at most.
const OUTAGE_PAUSE_MOST: Duration = Duration::from_secs(60);

/// Says that something fails: at once, then ever more seldom while it lasts, and once that it works again.
pub struct Outage {
    what: &'static str,
    over: &'static str,
    /// Not worth a line before it has lasted so long.
    patience: Duration,
    since: Option<Instant>,
    said: Option<Instant>,
    /// After a line.
    pause: Duration,
    tries: u64,
    is_known: bool,
}

impl Outage {
    /// Two sentences: `what` cannot be done, and that it is `over`.
    pub fn new(what: &'static str, over: &'static str) -> Self {
        let (patience, pause) = (Duration::ZERO, OUTAGE_PAUSE);
        Self { what, over, patience, since: None, said: None, pause, tries: 0, is_known: false }
    }

    /// The same for what mostly fails because of something that others tell at once: says nothing before it has lasted.
    pub fn after(patience: Duration, what: &'static str, over: &'static str) -> Self {
        Self { patience, ..Self::new(what, over) }
    }

    /// It failed once more. `class` is for machines, `advice` is what an operator does about it.
    pub fn failed(&mut self, class: &str, problem: &dyn Display, advice: &str) {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.tries += 1;
        if since.elapsed() < self.patience || self.said.is_some_and(|said| said.elapsed() < self.pause) {
            return;
        }
        // One that is told for the first time may follow soon after another one.
        self.pause = if self.is_known { (self.pause * 2).min(OUTAGE_PAUSE_MOST) } else { OUTAGE_PAUSE };
        (self.said, self.is_known) = (Some(Instant::now()), true);
        let (seconds, problem) = (since.elapsed().as_secs(), problem.to_string());
        tracing::warn!(class, problem, advice, tries = self.tries, seconds, "{}; trying again", self.what);
    }

    /// It worked.
    pub fn ended(&mut self) {
        let Some(since) = self.since.take() else { return };
        self.pause = OUTAGE_PAUSE;
        if std::mem::take(&mut self.is_known) {
            let seconds = since.elapsed().as_secs();
            tracing::info!(tries = self.tries, seconds, "{}", self.over);
        }
        self.tries = 0;
    }
}

/// The same for many who do it at once: while it works, nobody waits for another.
pub struct SharedOutage {
    outage: Mutex<Outage>,
    fails: AtomicBool,
}

impl SharedOutage {
    /// [`Outage::new`].
    pub fn new(what: &'static str, over: &'static str) -> Self {
        Self { outage: Mutex::new(Outage::new(what, over)), fails: AtomicBool::new(false) }
    }

    /// [`Outage::failed`].
    pub fn failed(&self, class: &str, problem: &dyn Display, advice: &str) {
        self.fails.store(true, Ordering::Relaxed);
        self.outage.lock().failed(class, problem, advice);
    }

    /// [`Outage::ended`].
    pub fn worked(&self) {
        if self.fails.load(Ordering::Relaxed) && self.fails.swap(false, Ordering::Relaxed) {
            self.outage.lock().ended();
        }
    }
}

/// Lets a line into the log once in a while, and counts those that it kept back. A line that says how many those were
/// calls that `untold`.
pub struct LogThrottle {
    every: Duration,
    told: Mutex<Option<(Instant, u64)>>,
}

impl LogThrottle {
    /// For lines about one purchase, message or product each: a fault can make thousands of them.
    pub const fn each_second() -> Self {
        Self::new(Duration::from_secs(1))
    }

    /// One line in `every`.
    pub const fn new(every: Duration) -> Self {
        Self { every, told: Mutex::new(None) }
    }

    /// Whether it is time for a line; then, how many were kept back since the last one.
    pub fn now(&self) -> Option<u64> {
        let mut told = self.told.lock();
        match &mut *told {
            Some((at, kept_back)) if at.elapsed() < self.every => {
                *kept_back += 1;
                None
            }
            before => {
                let kept_back = before.take().map_or(0, |(_, kept_back)| kept_back);
                *before = Some((Instant::now(), 0));
                Some(kept_back)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trouble_is_a_line_at_once_and_none_for_a_while() {
        let mut outage = Outage::new("Could not write orders", "Orders are written again");
        outage.failed("full", &"no space", "make some");
        let said = outage.said;
        outage.failed("full", &"no space", "make some");
        assert_eq!((outage.tries, outage.said), (2, said));
        outage.ended();
        assert!(outage.since.is_none() && !outage.is_known);
        // A new one soon after is not worth a line, nor is its end.
        outage.failed("locked", &"deadlock", "nothing");
        assert!(outage.said == said && !outage.is_known);
    }

    /// Guards against: twelve lines a minute for as long as a database is away.
    #[test]
    fn a_trouble_that_lasts_is_told_ever_more_seldom() {
        let mut outage = Outage::new("Could not write orders", "Orders are written again");
        let mut pauses = Vec::new();
        for _ in 0..7 {
            outage.failed("full", &"no space", "make some");
            pauses.push(outage.pause.as_secs());
            // As if the pause were over.
            outage.said = outage.said.and_then(|said| said.checked_sub(outage.pause));
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60, 60]);
        outage.ended();
        assert_eq!(outage.pause, OUTAGE_PAUSE);
    }

    #[test]
    fn what_others_tell_is_told_here_only_if_it_lasts() {
        let mut outage = Outage::after(Duration::from_secs(10), "Could not look", "Looks again");
        outage.failed("lost", &"reset", "wait");
        assert!(outage.said.is_none());
        outage.since = outage.since.and_then(|since| since.checked_sub(Duration::from_secs(10)));
        outage.failed("lost", &"reset", "wait");
        assert!(outage.said.is_some());
    }
}
