//! Whether a connection may be written to, and whether its client takes what is written.

use super::Connection;

/// Written at most before another connection has its turn.
const WRITE_TURN_BYTES: usize = 256 * 1024;

impl Connection {
    /// Whether the stream may be written; whoever writes is woken when it may.
    pub(in crate::http) fn may_write(&self) -> bool {
        let may = self.written_turn.get() < WRITE_TURN_BYTES;
        if !may {
            self.unsent.set(true);
            self.wake();
        }
        may
    }

    /// Whether what is written is not a reply of the service.
    pub(in crate::http) fn is_not_ours(&self) -> bool {
        !self.answering.get()
    }

    pub(in crate::http) fn has_written(&self, bytes: usize) {
        self.written_turn.set(self.written_turn.get() + bytes);
        if self.stalled_since.get().is_some() {
            self.taken.set(self.taken.get().saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX)));
        }
    }

    /// The system takes nothing more.
    pub(in crate::http) fn is_stalled(&self) {
        self.unsent.set(true);
        if self.stalled_since.get().is_none() {
            self.stalled_since.set(Some(self.thread.now()));
            self.taken.set(0);
            self.thread.stalled.set(self.thread.stalled.get() + 1);
        }
    }

    /// Everything that was written is with the system.
    pub(in crate::http) fn all_sent(&self) {
        if !self.in_call.get() {
            self.answering.set(false);
        }
        if self.unsent.take() {
            self.recover();
            if !self.in_call.get() {
                let now = self.thread.now();
                self.idle_since.set(now);
                if self.head_since.get().is_some() {
                    self.head_since.set(Some(now));
                }
            }
            self.unpark();
        }
    }

    pub(super) fn recover(&self) {
        if self.stalled_since.take().is_some() {
            self.thread.stalled.set(self.thread.stalled.get() - 1);
        }
    }
}
