//! A gate as it was when it was asked.

use std::time::{Duration, Instant};

use super::super::clock::Asked;
use super::super::replies::{GateVersion, OpenGate};
use super::admitted::Users;
use crate::model::{Denial, SaleSettings, Timestamp, UserId};

/// What was true this long ago denies nobody any more.
const FRESH: Duration = Duration::from_millis(200);

pub(super) struct Snapshot {
    version: GateVersion,
    settings: SaleSettings,
    /// All of them, if it was full.
    buyers: Option<Users>,
    asked: Asked,
}

impl Snapshot {
    /// `buyers`: all of them, if the gate was full.
    pub(super) fn new(OpenGate { settings, version, .. }: OpenGate, asked: Asked, buyers: Option<Users>) -> Self {
        Self { version, settings, buyers, asked }
    }

    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.asked.sent) <= FRESH
    }

    /// What denies everybody, or everybody but the buyers of a full sale, if the gate's clock leaves no doubt.
    pub(super) fn denial(&self, now: Instant) -> Option<Denial> {
        // Without buyers, pretend that one unit is left: then only the sale window and the pause can deny.
        let remaining = i64::from(self.buyers.is_none());
        let at = |ms| Timestamp::from_unix_ms(ms).and_then(|at| self.settings.denial(remaining, at));
        let (earliest, latest) = (at(self.asked.earliest(now))?, at(self.asked.latest(now))?);
        (earliest == latest).then_some(latest)
    }

    /// Whether a user holds a unit, or nobody knows.
    pub(super) fn may_hold(&self, user: UserId) -> bool {
        self.buyers.as_ref().is_none_or(|buyers| buyers.contains(&user))
    }

    pub(super) fn buyer_count(&self) -> usize {
        self.buyers.as_ref().map_or(0, |buyers| buyers.len())
    }

    /// Whether the gate is what this shows with all its buyers.
    pub(super) fn is_still_full(&self, gate: &OpenGate) -> bool {
        let same_buyers = self.buyers.as_ref().is_some_and(|buyers| buyers.len() as i64 == gate.buyers);
        self.version == gate.version && same_buyers
    }

    pub(super) fn asked_again(&mut self, asked: Asked) {
        self.asked = asked;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTS_AT: i64 = 1_000_000;

    fn snapshot(sent: Instant, clock: i64, buyers: Option<Users>) -> Snapshot {
        let at = |ms| Timestamp::from_unix_ms(ms).unwrap();
        let (starts_at, terms) = (at(STARTS_AT), None);
        let settings = SaleSettings { revision: 1, stock: 1, starts_at, ends_at: None, paused: false, terms };
        let gate = OpenGate { settings, version: GateVersion::of(1, 1), taken: 1, buyers: 1, in_flight: 0 };
        let asked = Asked { sent, received: sent + Duration::from_millis(10), clock: at(clock) };
        Snapshot::new(gate, asked, buyers)
    }

    #[test]
    fn it_denies_only_while_the_clock_of_redis_leaves_no_doubt() {
        let sent = Instant::now();
        let received = sent + Duration::from_millis(10);
        let before = snapshot(sent, STARTS_AT - 20, None);
        let starts_at = Timestamp::from_unix_ms(STARTS_AT).unwrap();
        assert_eq!(before.denial(received), Some(Denial::NotStarted(starts_at)));
        assert_eq!(before.denial(received + Duration::from_millis(15)), None, "it may have begun");
        assert_eq!(before.denial(received + Duration::from_millis(30)), None, "it has begun, and a unit may remain");
    }

    #[test]
    fn a_full_sale_is_sold_out_to_all_but_its_buyers_as_long_as_the_snapshot_is_fresh() {
        let (sent, buyer, stranger) = (Instant::now(), 1_i64.try_into().unwrap(), 2_i64.try_into().unwrap());
        let full = snapshot(sent, STARTS_AT, Some([buyer].into_iter().collect()));
        assert_eq!(full.denial(sent + FRESH), Some(Denial::SoldOut));
        assert!(full.may_hold(buyer) && !full.may_hold(stranger));
        assert!(full.is_fresh(sent + FRESH) && !full.is_fresh(sent + FRESH + Duration::from_millis(1)));
    }
}
