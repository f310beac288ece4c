//! When a connection has waited for too long, and which one goes first when there are too many.

use super::Connection;
use crate::http::refusal::Refusal;
use crate::http::thread::seconds;

/// A head must be complete this long after its first byte.
const HEAD_TICKS: u32 = seconds(5);
/// A new connection must send a first byte by then.
const FIRST_BYTE_TICKS: u32 = seconds(10);
/// Longer than the minute after which most proxies close an idle connection: were we the first to close it, a request
/// could meet its end.
const IDLE_TICKS: u32 = seconds(75);
/// A piece of a reply that the client does not take at all ends the connection by then; so much taken gives it another
/// second.
const STALL_TICKS: u32 = seconds(15);
const TAKEN_BYTES_A_SECOND: u32 = 1024;
/// The same while very many, or very large ones, are not taken.
const STALL_TICKS_CROWDED: u32 = seconds(2);
const TAKEN_BYTES_A_SECOND_CROWDED: u32 = 16 * 1024;

impl Connection {
    /// Ends a connection that has waited for too long; says why.
    pub(in crate::http) fn check(&self, now: u32, crowded: bool) -> Option<&'static str> {
        let since = |then: u32| now.saturating_sub(then);
        if let Some(then) = self.stalled_since.get() {
            let (most, rate) = match crowded {
                true => (STALL_TICKS_CROWDED, TAKEN_BYTES_A_SECOND_CROWDED),
                false => (STALL_TICKS, TAKEN_BYTES_A_SECOND),
            };
            let earned = seconds(1).saturating_mul(self.taken.get() / rate);
            return (since(then) > most.saturating_add(earned)).then(|| self.end("reply not taken"));
        }
        if self.in_call.get() || self.unsent.get() {
            return None;
        }
        if let Some(then) = self.head_since.get() {
            if since(then) <= HEAD_TICKS {
                return None;
            }
            if self.body.borrow().is_none() {
                self.refusal.set(Some(Refusal::SlowHead));
            }
            return Some(self.end("slow head"));
        }
        let most = if self.called_ever.get() { IDLE_TICKS } else { FIRST_BYTE_TICKS };
        // What is merely idle is no fault.
        if since(self.idle_since.get()) > most {
            self.end("idle");
        }
        None
    }

    /// Bytes of a reply that it keeps here because the client does not take them.
    pub(in crate::http) fn kept_back(&self) -> usize {
        if self.stalled_since.get().is_some() { self.owed.get() } else { 0 }
    }

    /// How long it has done nothing, if it may be closed for another; the longest goes first.
    pub(in crate::http) fn idleness(&self, now: u32) -> Option<u32> {
        if self.cut.get() {
            return None;
        }
        if let Some(then) = self.stalled_since.get() {
            return Some(now.saturating_sub(then)).filter(|ticks| *ticks >= STALL_TICKS_CROWDED);
        }
        (!self.in_call.get() && !self.unsent.get()).then(|| now.saturating_sub(self.idle_since.get()))
    }

    /// Ends the connection at its next turn, which is soon.
    pub(in crate::http) fn end(&self, why: &'static str) -> &'static str {
        self.cut.set(true);
        self.parked.set(false);
        self.wake();
        why
    }
}
