//! The queue in this process. A purchase group is confirmed when it is in the journal, a file beside the database; what waits
//! meanwhile shares the next commit, and its one flush to disk. A consumer's acknowledgement takes it out again, with
//! some later commit: until then a restart delivers it once more, which is harmless.

mod desk;
mod journal;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use self::desk::Errand;
pub use self::desk::JournalDesk;
use self::journal::Done;
pub use self::journal::Journal;
use crate::model::PurchaseGroup;
use crate::queue::message::{self, MessagePart};
use crate::queue::report::{Depth, PublishError};
use crate::supervision::Supervisor;
use crate::telemetry::{LogThrottle, Outage};

/// Purchases that are published and not yet acknowledged, at most.
const CAPACITY: usize = 50_000;
/// Lines about purchases that are set aside.
static SET_ASIDE: LogThrottle = LogThrottle::each_second();
/// From here on the journal slows down, by up to [`MAX_BRAKE`] a commit: while orders are written more slowly than
/// promises are given, a promise that comes later is better than none.
const BRAKE_FROM: usize = CAPACITY / 2;
const MAX_BRAKE: Duration = Duration::from_millis(40);
/// Messages in one commit at most.
const MAX_COMMIT: usize = 256;
/// How long a publisher waits for its confirm. Nothing is known about a message after that (I5).
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// A commit that takes longer than this hangs: the disk does not answer.
const COMMIT_HANGS_AFTER: Duration = Duration::from_secs(1);
/// Pauses before a commit that failed is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const MAX_RETRY: Duration = Duration::from_secs(1);

/// See the module.
pub struct EmbeddedQueue {
    entries: mpsc::Sender<Entry>,
    writer: Mutex<Option<Writer>>,
    state: Arc<State>,
    stopped: Arc<Notify>,
}

/// A purchase group in the journal.
pub struct DeliveredGroup {
    message: MessagePart,
    seq: i64,
    state: Arc<State>,
    delivered_at: Option<Instant>,
}

enum Entry {
    Group {
        group: PurchaseGroup,
        confirm: oneshot::Sender<()>,
    },
    /// Something to do with dead letters.
    Errand(Errand),
    Stop,
}

/// What publishers, the writer and the deliveries share.
struct State {
    /// Purchases that are published and not yet acknowledged.
    unacked: AtomicUsize,
    /// Messages that are published and not yet acknowledged, and those set aside.
    messages: AtomicI64,
    dead: AtomicI64,
    acknowledged: Notify,
    done: Mutex<Vec<Done>>,
    opened_at: Instant,
    /// From when on the running commit counts as hung, in milliseconds after `opened_at`; [`NEVER`] while there is none. Only the
    /// writer sets it, so it says what is, not what was.
    hangs_at: AtomicU64,
}

const NEVER: u64 = u64::MAX;

/// The thread that writes the journal.
struct Writer {
    journal: Journal,
    last_seq: i64,
    unfinished: Vec<(i64, Vec<u8>)>,
    entries: mpsc::Receiver<Entry>,
    state: Arc<State>,
    outage: Outage,
}

impl EmbeddedQueue {
    /// Opens the journal.
    pub(super) fn open(file: &Path) -> Result<Self, String> {
        let failed = |error: diesel::result::Error| format!("{}: {error}", file.display());
        let mut journal = Journal::open(file)?;
        let (unfinished, last_seq) = (journal.unfinished().map_err(failed)?, journal.last_seq().map_err(failed)?);
        let (entries, receiver) = mpsc::channel(CAPACITY);
        let state = Arc::new(State::new());
        state.dead.store(journal.count_dead().map_err(failed)?, Ordering::Relaxed);
        let outage =
            Outage::new("Could not write the journal; purchases are answered 503", "The journal is written again");
        let writer = Writer { journal, last_seq, unfinished, entries: receiver, state: state.clone(), outage };
        Ok(Self { entries, writer: Mutex::new(Some(writer)), state, stopped: Arc::default() })
    }

    pub(super) fn start<D: From<DeliveredGroup> + Send + 'static>(
        &self,
        supervisor: &Supervisor,
    ) -> Option<mpsc::Receiver<D>> {
        let mut writer = self.writer.lock().take()?;
        // What is left of an earlier process can be more than is admitted at a time, after a replay of many dead letters.
        let (deliveries, receiver) = mpsc::channel(CAPACITY + writer.unfinished.len());
        writer.deliver_unfinished(&deliveries);
        let stopped = self.stopped.clone();
        // Not a task: it waits for the disk, and nothing may wait for it at the end of the process.
        let mut writer = Some(writer);
        supervisor.vital_thread("journal", move || {
            if let Some(writer) = writer.take() {
                writer.run(&deliveries);
            }
            stopped.notify_one();
        });
        Some(receiver)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state.has_room() && !self.state.is_stalled() && !self.entries.is_closed()
    }

    pub(super) fn depth(&self) -> Depth {
        let of = |count: &AtomicI64| count.load(Ordering::Relaxed);
        Depth { messages: of(&self.state.messages), dead: of(&self.state.dead), refused_dead: 0 }
    }

    /// What is wrong, in one word.
    pub(super) fn trouble(&self) -> Option<&'static str> {
        if self.entries.is_closed() {
            Some("stopped")
        } else if self.state.is_stalled() {
            Some("disk")
        } else {
            (!self.is_ready()).then_some("full")
        }
    }

    pub(super) async fn publish(&self, group: &PurchaseGroup) -> Result<(), PublishError> {
        if !self.is_ready() {
            return Err(PublishError::Unavailable);
        }
        let (confirm, confirmed) = oneshot::channel();
        self.state.expect(group.items.len());
        if self.entries.try_send(Entry::Group { group: group.clone(), confirm }).is_err() {
            self.state.acknowledge(group.items.len());
            return Err(PublishError::Unavailable);
        }
        match tokio::time::timeout(CONFIRM_TIMEOUT, confirmed).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(PublishError::Unclear),
        }
    }

    /// What was set aside.
    pub(super) fn dead_letters(&self) -> JournalDesk {
        JournalDesk::new(self.entries.clone())
    }

    /// Waits until nothing is published that is not acknowledged.
    pub(super) async fn drained(&self) {
        loop {
            let acknowledged = self.state.acknowledged.notified();
            if self.state.unacked.load(Ordering::Relaxed) == 0 {
                return;
            }
            acknowledged.await;
        }
    }

    /// Writes what has been published and ends.
    pub(super) async fn stop(&self) {
        if self.entries.send(Entry::Stop).await.is_ok() {
            self.stopped.notified().await;
        }
    }
}

impl State {
    fn new() -> Self {
        Self {
            unacked: AtomicUsize::default(),
            messages: AtomicI64::default(),
            dead: AtomicI64::default(),
            acknowledged: Notify::new(),
            done: Mutex::default(),
            opened_at: Instant::now(),
            hangs_at: AtomicU64::new(NEVER),
        }
    }

    /// Whether more purchases may wait to be written.
    fn has_room(&self) -> bool {
        self.unacked.load(Ordering::Relaxed) < CAPACITY
    }

    /// Whether the journal cannot be written just now.
    fn is_stalled(&self) -> bool {
        let hangs_at = self.hangs_at.load(Ordering::Relaxed);
        hangs_at != NEVER && self.opened_at.elapsed().as_millis() as u64 >= hangs_at
    }

    /// A commit is under way from now on, which hangs after `patience`.
    fn commit_begins(&self, patience: Duration) {
        let hangs_at = (self.opened_at.elapsed() + patience).as_millis() as u64;
        self.hangs_at.store(hangs_at, Ordering::Relaxed);
    }

    fn commit_done(&self) {
        self.hangs_at.store(NEVER, Ordering::Relaxed);
    }

    fn expect(&self, purchases: usize) {
        self.unacked.fetch_add(purchases, Ordering::Relaxed);
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    fn acknowledge(&self, purchases: usize) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.unacked.fetch_sub(purchases, Ordering::Relaxed);
        self.acknowledged.notify_waiters();
    }
}

impl Writer {
    fn deliver_unfinished<D: From<DeliveredGroup>>(&mut self, deliveries: &mpsc::Sender<D>) {
        let mut unreadable = Vec::new();
        for (seq, body) in std::mem::take(&mut self.unfinished) {
            match message::decode(&body) {
                Ok(MessagePart::Purchases(group)) => {
                    self.state.expect(group.items.len());
                    self.deliver(seq, group, deliveries);
                }
                other => {
                    let problem = other.err().unwrap_or_else(|| "not purchases".to_owned());
                    if let Some(untold) = SET_ASIDE.now() {
                        tracing::error!(problem, untold, "Set purchases of the journal aside that cannot be read");
                    }
                    self.state.dead.fetch_add(1, Ordering::Relaxed);
                    unreadable.push(Done { seq, dead: Some(problem) });
                }
            }
        }
        self.state.done.lock().append(&mut unreadable);
    }

    fn run<D: From<DeliveredGroup>>(mut self, deliveries: &mpsc::Sender<D>) {
        let mut received = Vec::with_capacity(MAX_COMMIT);
        loop {
            self.entries.blocking_recv_many(&mut received, MAX_COMMIT);
            let stop = received.is_empty() || received.iter().any(|entry| matches!(entry, Entry::Stop));
            let mut rows = Vec::with_capacity(received.len());
            let (mut groups, mut errands) = (Vec::with_capacity(received.len()), Vec::new());
            for entry in received.drain(..) {
                let (group, confirm) = match entry {
                    Entry::Group { group, confirm } => (group, confirm),
                    Entry::Errand(errand) => {
                        errands.push(errand);
                        continue;
                    }
                    Entry::Stop => continue,
                };
                self.last_seq += 1;
                rows.push((self.last_seq, message::encode(&group)));
                groups.push((self.last_seq, group, confirm));
            }
            std::thread::sleep(brake(self.state.unacked.load(Ordering::Relaxed)));
            crash_point!("after_publish");
            crash_point!("journal");
            self.commit(&rows);
            for (seq, group, confirm) in groups {
                // A publisher that gave up has gone.
                let _ = confirm.send(());
                self.deliver(seq, group, deliveries);
            }
            // After the commit, which has written down what is set aside by now.
            errands.into_iter().for_each(|errand| self.run_errand(errand, deliveries));
            if stop {
                return;
            }
        }
    }

    /// Tries until it is done. Meanwhile nobody else is admitted, and publishers give up one by one; what they published
    /// becomes orders all the same, for their units are taken.
    fn commit(&mut self, rows: &[(i64, Vec<u8>)]) {
        let done = std::mem::take(&mut *self.state.done.lock());
        let mut pause = RETRY_FIRST;
        self.state.commit_begins(COMMIT_HANGS_AFTER);
        while let Err(error) = self.journal.commit(&done, rows) {
            self.outage.failed("journal", &error, "is the disk of embedded.data_dir full, or read-only?");
            self.state.commit_begins(Duration::ZERO);
            std::thread::sleep(pause);
            pause = (pause * 2).min(MAX_RETRY);
        }
        self.state.commit_done();
        self.outage.ended();
    }

    fn deliver<D: From<DeliveredGroup>>(&self, seq: i64, group: PurchaseGroup, deliveries: &mpsc::Sender<D>) {
        let delivered_at = (!group.traced.is_empty()).then(Instant::now);
        let delivery =
            DeliveredGroup { message: MessagePart::Purchases(group), seq, state: self.state.clone(), delivered_at };
        // There is room for as many deliveries as purchases. Without a consumer it stays in the journal.
        let _ = deliveries.try_send(delivery.into());
    }
}

/// How long a commit is put off when so many purchases wait to be written.
fn brake(unacked: usize) -> Duration {
    MAX_BRAKE.mul_f64(unacked.saturating_sub(BRAKE_FROM) as f64 / (CAPACITY - BRAKE_FROM) as f64)
}

impl DeliveredGroup {
    pub(super) fn message(&self) -> &MessagePart {
        &self.message
    }

    pub(super) fn delivered_at(&self) -> Option<Instant> {
        self.delivered_at
    }

    pub(super) fn ack(self) {
        self.done(None);
    }

    pub(super) fn set_aside(self, reason: &str) {
        if let Some(untold) = SET_ASIDE.now() {
            let seq = self.seq;
            tracing::error!(
                reason,
                seq,
                untold,
                "Set purchases of the journal aside; see the console or GET /admin/dead-letters"
            );
        }
        self.done(Some(reason.to_owned()));
    }

    fn done(self, dead: Option<String>) {
        self.state.dead.fetch_add(i64::from(dead.is_some()), Ordering::Relaxed);
        self.state.done.lock().push(Done { seq: self.seq, dead });
        if let MessagePart::Purchases(group) = &self.message {
            self.state.acknowledge(group.items.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuller_the_queue_the_slower_the_journal() {
        assert_eq!(brake(BRAKE_FROM), Duration::ZERO);
        assert_eq!(brake((BRAKE_FROM + CAPACITY) / 2), MAX_BRAKE / 2);
        assert_eq!(brake(CAPACITY), MAX_BRAKE);
    }

    #[test]
    fn a_journal_is_stalled_while_a_commit_hangs_and_not_after_it() {
        let state = State::new();
        assert!(!state.is_stalled(), "nothing is being written");
        state.commit_begins(Duration::from_secs(3600));
        assert!(!state.is_stalled(), "it has time");
        state.commit_begins(Duration::ZERO);
        assert!(state.is_stalled(), "it has failed, or takes too long");
        state.commit_done();
        assert!(!state.is_stalled());
    }
}
