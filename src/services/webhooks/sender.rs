//! Sends one endpoint what is due, several at a time. A slow endpoint holds up nobody but itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::exchange::{Answer, Client, Request, TIMEOUT};
use super::payload::{Facts, event_name};
use super::retries::Schedule;
use super::target;
use super::turn::{self, Done, Ended, Turn, Wishes};
use crate::config::webhook_key;
use crate::db::{ClaimedDelivery, Db, Endpoint};
use crate::error::Result;
use crate::model::{Currency, EndpointId, Timestamp};
use crate::services::standard_webhooks::WebhookKey;
use crate::telemetry::{Metrics, Outage};

/// Tries of one endpoint at a time.
pub(super) const IN_FLIGHT: usize = 8;
/// The same while orders are written in a rush.
const IN_FLIGHT_IN_A_RUSH: usize = 2;
/// Nobody else sends what is held for so long. Of a process that died it is sent again after this.
const LEASE: Duration = Duration::from_secs(30);
/// What is held is begun within this, so that it ends before the lease does; five seconds are for a busy machine.
const BEGUN_WITHIN: Duration = Duration::from_secs(LEASE.as_secs() - TIMEOUT.as_secs() - 5);
/// Deliveries that are got at a time: what can be sent in a second, within these bounds.
const LEAST_CLAIM: f64 = 2.0 * IN_FLIGHT as f64;
const MOST_CLAIM: f64 = 256.0;
/// What ended is noted after this at the latest, or when there is so much of it.
const NOTED_WITHIN: Duration = Duration::from_millis(500);
const MOST_UNNOTED: usize = 256;
/// At a stop what is being sent has so long to end. What does not is sent again by another instance.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// Between two turns of which the first has failed.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// What all senders have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) db: Db,
    pub(super) schedule: Schedule,
    pub(super) currency: Currency,
    pub(super) allow_private: bool,
    pub(super) threads: Handle,
    pub(super) metrics: Arc<Metrics>,
}

/// See the module.
pub(super) struct Sender {
    id: EndpointId,
    common: Common,
    client: Client,
    /// Something may be due.
    poke: Arc<Notify>,
    stop: CancellationToken,
    /// As it was when something was last got.
    endpoint: Option<Arc<Endpoint>>,
    ready: VecDeque<Ready>,
    done: Vec<Done>,
    /// When the first of them ended.
    done_since: Option<Instant>,
    outage: Outage,
    /// Tries that end in a second.
    rate: f64,
    last_turn: Instant,
    /// What is held goes back.
    is_ending: bool,
}

/// A delivery that is held, and not begun.
struct Ready {
    delivery: ClaimedDelivery,
    body: String,
    lease: Uuid,
    held_since: Instant,
}

impl Ready {
    /// Whether it would end before its lease does.
    fn can_begin(&self) -> bool {
        self.held_since.elapsed() < BEGUN_WITHIN
    }
}

/// A try that is under way.
struct Sending {
    delivery: ClaimedDelivery,
    lease: Uuid,
    answer: JoinHandle<Answer>,
}

impl Sending {
    async fn end(self) -> Done {
        let Self { delivery, lease, answer } = self;
        let answer = answer.await.unwrap_or_else(|error| Answer::Failed(format!("a defect here: {error}")));
        Done { id: delivery.id, tries: delivery.tries, lease, ended: Ended::Answered(answer) }
    }
}

impl Sender {
    pub(super) fn new(id: EndpointId, common: Common, poke: Arc<Notify>, stop: CancellationToken) -> Self {
        let client = Client::new(common.allow_private, IN_FLIGHT);
        let outage = Outage::after(
            Duration::from_secs(15),
            "Could not get what an endpoint is to be told",
            "What endpoints are to be told is sent again",
        );
        Self {
            id,
            common,
            client,
            poke,
            stop,
            endpoint: None,
            ready: VecDeque::new(),
            done: Vec::new(),
            done_since: None,
            outage,
            rate: LEAST_CLAIM,
            last_turn: Instant::now(),
            is_ending: false,
        }
    }

    /// Sends until `stop`, or until the endpoint is gone or switched off.
    pub(super) async fn run(mut self) {
        let mut sending = FuturesUnordered::new();
        let mut may_be_more = true;
        while !self.stop.is_cancelled() {
            let most = if self.common.db.rush().is_some() { IN_FLIGHT_IN_A_RUSH } else { IN_FLIGHT };
            while sending.len() < most
                && let Some(next) = self.next_ready()
            {
                sending.push(self.begin(next).end());
            }
            let is_stale = self.ready.front().is_some_and(|ready| !ready.can_begin());
            let wants_more = may_be_more && (self.ready.is_empty() || is_stale) && sending.len() < most;
            if wants_more || is_stale || self.must_note(sending.is_empty()) {
                match self.turn(wants_more).await {
                    Ok(Some(is_full)) => {
                        may_be_more = if wants_more { is_full } else { may_be_more };
                        continue;
                    }
                    Ok(None) => break,
                    Err(()) => {
                        // Nothing is lost: what was held comes again when its lease is over.
                        let _ = self.stop.run_until_cancelled(tokio::time::sleep(AFTER_FAILURE)).await;
                        continue;
                    }
                }
            }
            let note_at = self.done_since.map(|since| since + NOTED_WITHIN);
            tokio::select! {
                Some(done) = sending.next(), if !sending.is_empty() => {
                    self.ended(done);
                    while let Some(Some(done)) = sending.next().now_or_never() {
                        self.ended(done);
                    }
                }
                () = self.poke.notified() => may_be_more = true,
                () = tokio::time::sleep_until(note_at.unwrap_or_else(Instant::now)), if note_at.is_some() => {}
                () = self.stop.cancelled() => {}
            }
        }
        self.is_ending = true;
        let until = Instant::now() + STOP_PATIENCE;
        while let Ok(Some(done)) = tokio::time::timeout_at(until, sending.next()).await {
            self.ended(done);
        }
        if !(self.done.is_empty() && self.ready.is_empty()) {
            let _ = self.turn(false).await;
        }
    }

    fn must_note(&self, is_idle: bool) -> bool {
        let is_late = self.done_since.is_some_and(|since| since.elapsed() >= NOTED_WITHIN);
        !self.done.is_empty() && (is_idle || is_late || self.done.len() >= MOST_UNNOTED)
    }

    fn ended(&mut self, done: Done) {
        crash_point!("after_webhook_sent");
        self.done.push(done);
        self.done_since.get_or_insert_with(Instant::now);
    }

    /// The next one that can be begun in time.
    fn next_ready(&mut self) -> Option<Ready> {
        // They were got together, so if the first is too old all are. They are given back with the next turn.
        self.ready.front().filter(|ready| ready.can_begin())?;
        self.ready.pop_front()
    }

    /// Begins a try.
    fn begin(&self, ready: Ready) -> Sending {
        let Ready { delivery, body, lease, .. } = ready;
        let (client, endpoint, allow_private) = (self.client.clone(), self.endpoint.clone(), self.common.allow_private);
        let id = event_name(delivery.event());
        let send = move || {
            let Some(endpoint) = endpoint else { return Answer::Failed("the endpoint is gone".to_owned()) };
            // Again: what is allowed may have changed. And in the form that was checked, for who connects may read it otherwise.
            let url = match target::parse(&endpoint.url, allow_private) {
                Ok(url) => url.to_string(),
                Err(problem) => return Answer::Failed(problem.to_string()),
            };
            let now = Timestamp::now();
            let timestamp = (now.unix_ms() / 1000).to_string();
            match signature(&endpoint, now, (&id, &timestamp, &body)) {
                Ok(signature) => client.send(&Request { url, id, timestamp, signature, body }),
                Err(problem) => Answer::Failed(format!("its secret in the table: {problem}")),
            }
        };
        Sending { delivery, lease, answer: self.common.threads.spawn_blocking(send) }
    }

    /// Notes what ended, and gets more if that is wanted. `None`: the endpoint is gone or switched off. True: there may be more.
    async fn turn(&mut self, wants_more: bool) -> std::result::Result<Option<bool>, ()> {
        let taken = self.last_turn.elapsed().as_secs_f64().max(0.001);
        if !self.done.is_empty() {
            self.rate = 0.5 * self.rate + 0.5 * self.done.len() as f64 / taken;
        }
        let more = if wants_more { self.rate.clamp(LEAST_CLAIM, MOST_CLAIM) as i64 } else { 0 };
        // At the end, or when they have waited for too long, what is not begun goes back.
        let goes_back = |ready: &Ready| self.is_ending || !ready.can_begin();
        let (back, ready): (VecDeque<Ready>, _) = std::mem::take(&mut self.ready).into_iter().partition(goes_back);
        self.ready = ready;
        let unsent = back.iter().map(|ready| (ready.delivery.id, ready.lease)).collect();
        let (lease, held_since) = (Uuid::new_v4(), Instant::now());
        let wishes = Wishes { endpoint: self.id, done: self.done.clone(), unsent, more, lease, held_for: LEASE };
        let schedule = self.common.schedule.clone();
        let turn =
            self.common.db.transaction(move |conn| Box::pin(async move { turn::take(conn, wishes, &schedule).await }));
        let Turn { endpoint, claimed, switched_off, given_up } = self.settled(turn.await)?;
        self.last_turn = Instant::now();
        self.count(given_up);
        if let Some(reason) = switched_off {
            tracing::warn!(webhook.id = %self.id, reason, "Switched a webhook off");
        }
        let Some(endpoint) = endpoint else { return Ok(None) };
        self.endpoint = Some(Arc::new(endpoint));
        crash_point!("after_webhook_claim");
        let is_full = claimed.len() as i64 == more && more > 0;
        if !claimed.is_empty() {
            let facts = self.settled(Facts::read(&self.common.db, &claimed).await)?;
            for delivery in claimed {
                match facts.body(&delivery, self.common.currency) {
                    Ok(body) => self.ready.push_back(Ready { delivery, body, lease, held_since }),
                    Err(problem) => self.ended(Done {
                        id: delivery.id,
                        tries: delivery.tries,
                        lease,
                        ended: Ended::Unsendable(problem),
                    }),
                }
            }
        }
        Ok(Some(is_full))
    }

    fn settled<T>(&mut self, result: Result<T>) -> std::result::Result<T, ()> {
        match result {
            Ok(value) => {
                self.outage.ended();
                Ok(value)
            }
            Err(error) => {
                let advice = "see what the log says of the database; nothing is lost";
                self.outage.failed(error.code(), &error, advice);
                Err(())
            }
        }
    }

    /// Counts what is noted now.
    fn count(&mut self, given_up: usize) {
        self.done_since = None;
        for done in self.done.drain(..) {
            let outcome = match done.ended {
                Ended::Answered(Answer::Taken(_)) => "delivered",
                Ended::Answered(Answer::Refused(..)) => "refused",
                Ended::Answered(Answer::Failed(_)) => "unanswered",
                Ended::Unsendable(_) => "unsendable",
            };
            self.common.metrics.webhooks.tried(outcome);
        }
        self.common.metrics.webhooks.gave_up(given_up);
    }
}

/// What `webhook-signature` says: of the secret, and of the one before while that is good.
fn signature(
    endpoint: &Endpoint,
    now: Timestamp,
    (id, timestamp, body): (&str, &str, &str),
) -> std::result::Result<String, &'static str> {
    let sign = |secret: &str| webhook_key(secret).map(|key| WebhookKey::new(&key).sign(id, timestamp, body.as_bytes()));
    let signatures: std::result::Result<Vec<String>, _> = endpoint.secrets_at(now).map(sign).collect();
    Ok(signatures?.join(" "))
}
