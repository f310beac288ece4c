//! Which types of events somebody wants to be told of, where every connection can look without asking the database.
//!
//! What nobody wants costs nothing: no row, no query. Until somebody has looked it counts as wanted, for a row too many does no harm.

use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};

use crate::model::{EventType, EventTypes, Timestamp};

/// Orders were written so lately that a sale goes on.
const LATELY_MS: i64 = 500;

/// See the module.
#[derive(Debug)]
pub(super) struct Listening {
    wanted: AtomicU16,
    /// When orders were last written that somebody is to be told of. Milliseconds since 1970.
    sold_at: AtomicI64,
}

impl Default for Listening {
    fn default() -> Self {
        Self { wanted: AtomicU16::new(EventTypes::all().bits()), sold_at: AtomicI64::new(0) }
    }
}

impl Listening {
    pub(super) fn set(&self, wanted: EventTypes) {
        self.wanted.store(wanted.bits(), Ordering::Relaxed);
    }

    /// Orders are being written that somebody is to be told of.
    pub(super) fn sells(&self, now: Timestamp) {
        self.sold_at.store(now.unix_ms(), Ordering::Relaxed);
    }

    pub(super) fn sells_now(&self) -> bool {
        (Timestamp::now().unix_ms() - self.sold_at.load(Ordering::Relaxed)).abs() < LATELY_MS
    }

    pub(super) fn wants(&self, event_type: EventType) -> bool {
        EventTypes::from_bits(self.wanted.load(Ordering::Relaxed)).contains(event_type)
    }
}
