//! The newest event of each thing that is listened to, for all who listen to it.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::error::{Error, Result};
use crate::model::Timestamp;

/// Listeners hear something so often at least, for proxies close a connection that is silent, and a client that is gone shows only when
/// something is sent to it.
const SILENCE: Duration = Duration::from_secs(15);

/// What is told.
pub(super) trait Event: PartialEq + Send + Sync + 'static {
    /// As it is sent at that moment.
    fn encoded(&self, now: Timestamp) -> Result<Bytes>;

    /// Whether those who have heard `before` should hear this at once, however many they are.
    fn is_urgent_after(&self, before: &Self) -> bool;
}

/// What a listener is to hear next.
pub(super) struct Newest<E> {
    pub(super) event: E,
    /// As all hear it who have listened before.
    pub(super) encoded: Bytes,
    /// Grows with each change; one that has heard this one has heard all.
    pub(super) change: u64,
    /// What one hears who has.
    pub(super) alive: Bytes,
    sent: Instant,
}

type Feeds<K, E> = HashMap<K, watch::Sender<Newest<E>>>;

/// See the module.
pub(super) struct FanOut<K, E> {
    /// `None`: the process stops, and nobody listens any more.
    feeds: Mutex<Option<Feeds<K, E>>>,
    arrived: Notify,
}

impl<K: Copy + Eq + Hash, E: Event> FanOut<K, E> {
    pub(super) fn new() -> Self {
        Self { feeds: Mutex::new(Some(HashMap::new())), arrived: Notify::new() }
    }

    /// Listens to what somebody listens to already.
    pub(super) fn join(&self, key: K) -> Result<Option<watch::Receiver<Newest<E>>>> {
        let feeds = self.feeds.lock();
        Ok(feeds.as_ref().ok_or_else(stopping)?.get(&key).map(watch::Sender::subscribe))
    }

    /// Listens to what is this just now.
    pub(super) fn begin(&self, key: K, event: E, now: Timestamp) -> Result<watch::Receiver<Newest<E>>> {
        let mut feeds = self.feeds.lock();
        let feeds = feeds.as_mut().ok_or_else(stopping)?;
        if let Some(feed) = feeds.get(&key) {
            update(feed, event, now);
            return Ok(feed.subscribe());
        }
        let encoded = event.encoded(now)?;
        let (feed, listener) =
            watch::channel(Newest { event, encoded, change: 0, alive: Bytes::new(), sent: Instant::now() });
        feeds.insert(key, feed);
        self.arrived.notify_one();
        Ok(listener)
    }

    /// What is to be looked at, once it is time: while nobody listens, that is never.
    pub(super) async fn due(&self, pause: impl Fn() -> Duration) -> Vec<K> {
        loop {
            let is_idle = self.listened().is_empty();
            if is_idle {
                self.arrived.notified().await;
            }
            tokio::time::sleep(pause()).await;
            let listened = self.listened();
            if !listened.is_empty() {
                return listened;
            }
        }
    }

    /// What is listened to. The rest is forgotten.
    fn listened(&self) -> Vec<K> {
        let mut feeds = self.feeds.lock();
        let Some(feeds) = feeds.as_mut() else { return Vec::new() };
        feeds.retain(|_, feed| feed.receiver_count() > 0);
        feeds.keys().copied().collect()
    }

    /// Tells all who listen, if it is another than before. What is not urgent waits until they have heard nothing for `pace`: it is
    /// told then, or what has become of it.
    pub(super) fn tell(&self, key: K, event: E, now: Timestamp, pace: Duration) {
        if let Some(feed) = self.feeds.lock().as_ref().and_then(|feeds| feeds.get(&key)) {
            let is_due = {
                let newest = feed.borrow();
                newest.sent.elapsed() >= pace || event.is_urgent_after(&newest.event)
            };
            if is_due {
                update(feed, event, now);
            }
        }
    }

    /// Breaks silences that have become too long, with what there is to say: what time it is.
    pub(super) fn keep_alive(&self, now: Timestamp) {
        let alive = Bytes::from(format!(":\n\nevent: alive\ndata: {{\"server_time\":\"{now}\"}}\n\n"));
        for feed in self.feeds.lock().iter().flat_map(HashMap::values) {
            let is_silent = feed.borrow().sent.elapsed() >= SILENCE;
            if is_silent {
                feed.send_modify(|newest| {
                    newest.alive = alive.clone();
                    newest.sent = Instant::now();
                });
            }
        }
    }

    /// All listeners come to their end, and nobody begins to listen.
    pub(super) fn end(&self) {
        self.feeds.lock().take();
    }
}

fn update<E: Event>(feed: &watch::Sender<Newest<E>>, event: E, now: Timestamp) {
    feed.send_if_modified(|newest| {
        let encoded = if event == newest.event { None } else { event.encoded(now).ok() };
        let Some(encoded) = encoded else { return false };
        *newest = Newest { event, encoded, change: newest.change + 1, alive: Bytes::new(), sent: Instant::now() };
        true
    });
}

fn stopping() -> Error {
    Error::Unavailable("the process stops".to_owned())
}
