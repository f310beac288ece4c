//! The clock of Redis, by which sales begin and end, as this process knows it between two looks.
//!
//! It goes on by the monotonic clock of this machine, so nothing that is done to this machine's date changes it. It is never
//! ahead of the server's: what begins now by it can be bought at once.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use crate::model::Timestamp;

/// The server has not been asked yet.
const UNKNOWN: i64 = i64::MIN;

/// When gates were asked, by the clock of this process and by theirs.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) sent: Instant,
    pub(super) received: Instant,
    pub(super) clock: Timestamp,
}

impl Asked {
    /// The server's clock cannot show less than this now, in milliseconds.
    pub(super) fn earliest(&self, now: Instant) -> i64 {
        self.clock.unix_ms() + now.duration_since(self.received).as_millis() as i64
    }

    /// It cannot show more.
    pub(super) fn latest(&self, now: Instant) -> i64 {
        self.clock.unix_ms() + now.duration_since(self.sent).as_millis() as i64 + 1
    }
}

/// See the module.
pub(super) struct ServerClock {
    begun: Instant,
    /// The server's time, in milliseconds since 1970, when this process had its clock at `begun`.
    at_beginning: AtomicI64,
}

impl Default for ServerClock {
    fn default() -> Self {
        Self { begun: Instant::now(), at_beginning: AtomicI64::new(UNKNOWN) }
    }
}

impl ServerClock {
    /// Takes over what the server said. It said so before it was heard, so this is late rather than early.
    pub(super) fn set(&self, asked: Asked) {
        let since_begun = asked.received.saturating_duration_since(self.begun).as_millis() as i64 + 1;
        self.at_beginning.store(asked.clock.unix_ms() - since_begun, Ordering::Relaxed);
    }

    /// The server's time; this machine's as long as it was never asked.
    pub(super) fn now(&self) -> Timestamp {
        match self.at_beginning.load(Ordering::Relaxed) {
            UNKNOWN => Timestamp::now(),
            at_beginning => {
                let now = at_beginning.saturating_add(self.begun.elapsed().as_millis() as i64);
                Timestamp::from_unix_ms(now).unwrap_or_else(Timestamp::now)
            }
        }
    }
}
