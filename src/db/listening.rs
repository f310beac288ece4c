//! Which types of events somebody wants to be told of, where every connection can look without asking the database.
//!
//! What nobody wants costs nothing: no row, no query. Until somebody has looked it counts as wanted, for a row too many does no harm.

use std::sync::atomic::{AtomicU16, Ordering};

use crate::model::{EventType, EventTypes};

/// See the module.
#[derive(Debug)]
pub(super) struct Listening(AtomicU16);

impl Default for Listening {
    fn default() -> Self {
        Self(AtomicU16::new(EventTypes::all().bits()))
    }
}

impl Listening {
    pub(super) fn set(&self, wanted: EventTypes) {
        self.0.store(wanted.bits(), Ordering::Relaxed);
    }

    pub(super) fn wants(&self, event_type: EventType) -> bool {
        EventTypes::from_bits(self.0.load(Ordering::Relaxed)).contains(event_type)
    }
}
