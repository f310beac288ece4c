//! Messages on their way to the broker: waiting to be sent, then waiting for their confirm.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};

use crate::queue::report::PublishError;

/// How long a publisher waits for its confirm. Nothing is known about a message after that (I5).
pub(super) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages that are sent or wait to be sent, at most.
const CAPACITY: usize = 1024;
/// After a refusal, no purchase is taken for this long.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// A confirm that is overdue for so long is lost, if the broker takes other messages.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// Where connecting anew has not helped, it is tried after twice the time, up to this.
const LOST_AFTER_AT_MOST: Duration = Duration::from_secs(120);

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// The queue of admitted purchases.
    Orders,
    /// The dead-letter queue.
    Dead,
}

/// A message, and the caller that waits for its confirm.
pub(super) struct Outgoing {
    pub(super) to: Destination,
    pub(super) body: Vec<u8>,
    /// Why it is dead.
    pub(super) reason: Option<String>,
    deadline: Instant,
    waiter: oneshot::Sender<Result<(), PublishError>>,
}

#[derive(Default)]
struct State {
    unsent: VecDeque<Outgoing>,
    /// In the order they were sent, so in the order of their delivery tags.
    sent: VecDeque<(u64, Outgoing)>,
    last_tag: u64,
    /// Counts connections: tags begin anew on each.
    connection: u64,
    refused_at: Option<Instant>,
    /// Connections on which confirms were lost, since the last confirm that came.
    losses: u32,
    closed: bool,
}

/// See the module.
pub(super) struct Unconfirmed {
    state: Mutex<State>,
    filled: Notify,
}

impl State {
    fn is_full(&self) -> bool {
        self.unsent.len() + self.sent.len() >= CAPACITY
    }

    /// How long the confirm of the oldest message has been overdue: the broker is blocked or frozen. Computed each
    /// time, so it cannot be stale.
    fn overdue(&self) -> Option<Duration> {
        let (_, oldest) = self.sent.front()?;
        Instant::now().checked_duration_since(oldest.deadline).filter(|late| !late.is_zero())
    }
}

impl Unconfirmed {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), filled: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// How long a confirm has been overdue.
    pub(super) fn overdue(&self) -> Option<Duration> {
        self.state().overdue()
    }

    /// After what time a confirm that is overdue counts as lost: twice as long with each connection on which some were, until one
    /// comes.
    pub(super) fn lost_after(&self) -> Duration {
        LOST_AFTER.saturating_mul(1 << self.state().losses.min(5)).min(LOST_AFTER_AT_MOST)
    }

    /// Confirms were lost on this connection.
    pub(super) fn lost(&self) {
        self.state().losses += 1;
    }

    /// Whether a message sent now has a chance.
    pub(super) fn accepts(&self) -> bool {
        let state = self.state();
        !state.closed
            && state.overdue().is_none()
            && !state.is_full()
            && state.refused_at.is_none_or(|at| at.elapsed() > REFUSED_PAUSE)
    }

    /// Sends a message and waits for its confirm, for a while.
    pub(super) async fn send(
        &self,
        to: Destination,
        body: Vec<u8>,
        reason: Option<String>,
    ) -> Result<(), PublishError> {
        let sent = tokio::time::timeout(CONFIRM_TIMEOUT, self.send_and_wait(to, body, reason));
        sent.await.unwrap_or(Err(PublishError::Unclear))
    }

    /// The same, however long its confirm takes, on whichever connection. A message whose sender has gone is not sent any more.
    pub(super) async fn send_and_wait(
        &self,
        to: Destination,
        body: Vec<u8>,
        reason: Option<String>,
    ) -> Result<(), PublishError> {
        let (waiter, confirm) = oneshot::channel();
        {
            let mut state = self.state();
            if state.is_full() {
                state.unsent.retain(|message| !message.waiter.is_closed());
            }
            if state.closed || state.is_full() {
                return Err(PublishError::Unavailable);
            }
            state.unsent.push_back(Outgoing { to, body, reason, deadline: Instant::now() + CONFIRM_TIMEOUT, waiter });
        }
        self.filled.notify_one();
        confirm.await.unwrap_or(Err(PublishError::Unclear))
    }

    /// The next message to send; it counts as sent from here on, so that its confirm cannot come too early.
    pub(super) async fn next(&self) -> (Destination, Vec<u8>, Option<String>) {
        loop {
            {
                let mut state = self.state();
                while let Some(mut message) = state.unsent.pop_front() {
                    if message.waiter.is_closed() {
                        continue;
                    }
                    // Of one that waits for ever: only now can its confirm become overdue.
                    let now = Instant::now();
                    if message.deadline <= now {
                        message.deadline = now + CONFIRM_TIMEOUT;
                    }
                    state.last_tag += 1;
                    let tag = state.last_tag;
                    let copy = (message.to, message.body.clone(), message.reason.clone());
                    state.sent.push_back((tag, message));
                    return copy;
                }
            }
            self.filled.notified().await;
        }
    }

    /// The connection whose tags count now.
    pub(super) fn connection(&self) -> u64 {
        self.state().connection
    }

    /// The broker has answered for a delivery tag of a connection, or for all up to it.
    pub(super) fn answered(&self, connection: u64, tag: u64, multiple: bool, result: Result<(), PublishError>) {
        let mut state = self.state();
        // The library may still hand over what came on the one before: there the tag was another message's.
        if connection != state.connection {
            return;
        }
        while let Some(index) = state.sent.iter().position(|(sent, _)| *sent == tag || multiple && *sent < tag) {
            if let Some((_, message)) = state.sent.remove(index) {
                state.losses = 0;
                // A dead-letter queue that is full says nothing of the other one.
                if result == Err(PublishError::Refused) && message.to == Destination::Orders {
                    state.refused_at = Some(Instant::now());
                }
                // A waiter that gave up has gone.
                let _ = message.waiter.send(result);
            }
        }
    }

    /// The connection is gone. What it did not confirm goes first on the next one, under the same order ids, if somebody still
    /// waits for it.
    pub(super) fn unlinked(&self) {
        let mut state = self.state();
        state.last_tag = 0;
        state.connection += 1;
        while let Some((_, message)) = state.sent.pop_back() {
            state.unsent.push_front(message);
        }
    }

    /// Turns away what still waits and everything after.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.unsent.clear();
        state.sent.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn send(unconfirmed: &Arc<Unconfirmed>) -> tokio::task::JoinHandle<Result<(), PublishError>> {
        let unconfirmed = unconfirmed.clone();
        tokio::spawn(async move { unconfirmed.send(Destination::Orders, b"x".to_vec(), None).await })
    }

    #[tokio::test]
    async fn an_overdue_confirm_counts_until_it_comes_and_no_longer() {
        let (linked, unlinked) = (Arc::new(Unconfirmed::new()), Arc::new(Unconfirmed::new()));
        // One that the broker does not confirm, and one that no connection has taken.
        let sent = [send(&linked), send(&unlinked)];
        linked.next().await;
        for sent in sent {
            assert_eq!(sent.await.unwrap(), Err(PublishError::Unclear));
        }
        assert!(!linked.accepts());
        linked.answered(0, 1, false, Ok(()));
        assert!(linked.accepts());
        assert!(unlinked.accepts());
    }

    /// The next body to be sent, if there is one.
    async fn next(unconfirmed: &Unconfirmed) -> Option<Vec<u8>> {
        tokio::time::timeout(Duration::from_millis(50), unconfirmed.next()).await.ok().map(|(_, body, _)| body)
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_sent_nor_sent_again() {
        let unconfirmed = Arc::new(Unconfirmed::new());
        let (gone, waits) = (send(&unconfirmed), send(&unconfirmed));
        assert!(next(&unconfirmed).await.is_some());
        gone.abort();
        assert!(gone.await.is_err());
        unconfirmed.unlinked();
        assert!(next(&unconfirmed).await.is_some());
        assert!(next(&unconfirmed).await.is_none(), "only one of them waits");
        unconfirmed.answered(1, 1, false, Ok(()));
        assert_eq!(waits.await.unwrap(), Ok(()));
        // Given up between two connections.
        let gone = send(&unconfirmed);
        tokio::task::yield_now().await;
        gone.abort();
        assert!(gone.await.is_err());
        assert!(next(&unconfirmed).await.is_none());
        assert!(unconfirmed.overdue().is_none());
    }

    #[tokio::test]
    async fn a_message_that_is_waited_for_without_end_is_one_message() {
        let unconfirmed = Arc::new(Unconfirmed::new());
        let queue = unconfirmed.clone();
        let setting_aside =
            tokio::spawn(async move { queue.send_and_wait(Destination::Dead, b"x".to_vec(), None).await });
        // No connection takes it for longer than a confirm may take.
        tokio::time::sleep(CONFIRM_TIMEOUT + Duration::from_millis(100)).await;
        assert!(next(&unconfirmed).await.is_some() && next(&unconfirmed).await.is_none());
        assert_eq!(unconfirmed.overdue(), None, "its confirm can only be overdue from now on");
        unconfirmed.unlinked();
        assert!(next(&unconfirmed).await.is_some() && next(&unconfirmed).await.is_none());
        unconfirmed.answered(1, 1, false, Ok(()));
        assert_eq!(setting_aside.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn an_answer_of_a_connection_before_is_for_nobody() {
        let unconfirmed = Arc::new(Unconfirmed::new());
        let sent = send(&unconfirmed);
        unconfirmed.next().await;
        unconfirmed.unlinked();
        unconfirmed.next().await;
        unconfirmed.answered(0, 1, true, Ok(()));
        assert!(!sent.is_finished() && unconfirmed.connection() == 1);
        unconfirmed.answered(1, 1, false, Err(PublishError::Refused));
        assert_eq!(sent.await.unwrap(), Err(PublishError::Refused));
    }
}
