//! How one of the two connections is, and what the log says of it: each trouble when it begins or changes, once a minute
//! while it lasts, and one line when it is over. That a link broke is told with what comes of it: that it is back, or why a
//! new one cannot be made.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::problem::{BrokerProblem, Trouble};

/// A trouble that lasts, or comes and goes, is logged this often.
const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Condition {
    /// What does not happen meanwhile, for the log.
    purpose: &'static str,
    /// Apart from the rest: every purchase asks.
    linked: AtomicBool,
    state: Mutex<State>,
}

struct State {
    trouble: Option<Trouble>,
    since: Instant,
    /// How the last connection broke, if the log does not say it yet.
    broke: Option<BrokerProblem>,
    /// The last trouble that was logged, and when.
    logged: Option<(BrokerProblem, Instant)>,
    /// Whether the log says that something is wrong.
    log_says_ill: bool,
}

impl Condition {
    /// Of a connection that was not made yet.
    pub(super) fn new(purpose: &'static str) -> Self {
        let state = State {
            trouble: Some(Trouble::Unreachable),
            since: Instant::now(),
            broke: None,
            logged: None,
            log_says_ill: false,
        };
        Self { purpose, linked: AtomicBool::new(false), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn is_linked(&self) -> bool {
        self.linked.load(Ordering::Relaxed)
    }

    /// What is wrong just now.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.state().trouble
    }

    /// There is no connection any more.
    pub(super) fn unlinked(&self) {
        self.linked.store(false, Ordering::Relaxed);
        let mut state = self.state();
        if state.trouble.is_none() {
            state.trouble = Some(Trouble::Unreachable);
            state.since = Instant::now();
        }
    }

    /// Something is wrong.
    pub(super) fn ill(&self, problem: BrokerProblem) {
        let mut state = self.state();
        if state.trouble.is_none() {
            state.since = Instant::now();
        }
        state.trouble = Some(problem.trouble);
        if problem.is_broken_link {
            state.broke = Some(problem);
            return;
        }
        let logged = state.logged.as_ref();
        if logged.is_some_and(|(before, at)| before.text == problem.text && at.elapsed() < LOGGED_EVERY) {
            return;
        }
        state.log_says_ill = true;
        state.broke = None;
        let seconds = state.since.elapsed().as_secs();
        state.logged = Some((problem.clone(), Instant::now()));
        drop(state);
        let problem = problem.text;
        tracing::warn!(purpose = self.purpose, problem, seconds, "RabbitMQ cannot be used");
    }

    /// There is a connection, and nothing is wrong with it.
    pub(super) fn well(&self) {
        self.linked.store(true, Ordering::Relaxed);
        let mut state = self.state();
        let first = state.trouble.is_some() && state.logged.is_none();
        state.trouble = None;
        let (was_told, broke) = (std::mem::take(&mut state.log_says_ill), state.broke.take());
        let seconds = state.since.elapsed().as_secs();
        drop(state);
        match broke {
            Some(BrokerProblem { text: problem, .. }) => {
                tracing::info!(purpose = self.purpose, problem, seconds, "RabbitMQ can be used again");
            }
            None if was_told => tracing::info!(purpose = self.purpose, seconds, "RabbitMQ can be used again"),
            None if first => tracing::info!(purpose = self.purpose, "RabbitMQ can be used"),
            None => {}
        }
    }
}
