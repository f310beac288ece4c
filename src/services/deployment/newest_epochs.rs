//! Which gates are over: the newest epoch of each product whose gate was ever begun anew, as the database said at the last look.
//!
//! So an instance whose Redis was promoted away from, and who can still reach it, stops selling there before the new gate opens:
//! docs/protocol.md (`#deposed-gate`).

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::RwLock;

use crate::db::EpochsBegun;
use crate::model::{ProductId, Timestamp};

/// An epoch is read again for so long after it began: its transaction may have been committed later, and the clock of the
/// database may have gone back when another server became its primary.
const READ_AGAIN_FOR: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub(super) struct NewestEpochs(RwLock<Known>);

#[derive(Default)]
struct Known {
    epochs: HashMap<ProductId, i64>,
    /// The database's time at the last look.
    read_at: Option<Timestamp>,
}

impl NewestEpochs {
    /// From when on the next look must read; `None`: all there are.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.0.read().read_at.map(|at| at.before(READ_AGAIN_FOR))
    }

    /// Takes over what a look has read.
    pub(super) fn take_over(&self, read: EpochsBegun) {
        let EpochsBegun { now, begun } = read;
        let mut known = self.0.write();
        for (product, epoch) in begun {
            let newest = known.epochs.entry(product).or_insert(epoch);
            *newest = epoch.max(*newest);
        }
        // A clock that went back: what begins by it may lie before the last look, so the next one reads all.
        known.read_at = Some(now).filter(|now| known.read_at.is_none_or(|before| *now >= before));
    }

    /// Whether a newer gate than that of this epoch was begun.
    pub(super) fn is_over(&self, product: ProductId, epoch: i64) -> bool {
        let known = self.0.read();
        !known.epochs.is_empty() && known.epochs.get(&product).is_some_and(|newest| epoch < *newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + seconds * 1000).unwrap()
    }

    #[test]
    fn a_gate_is_over_once_a_newer_epoch_was_read() {
        let (epochs, product) = (NewestEpochs::default(), ProductId::try_from(7).unwrap());
        assert_eq!(epochs.since(), None, "the first look reads all");
        assert!(!epochs.is_over(product, 1));
        epochs.take_over(EpochsBegun { now: at(0), begun: vec![(product, 3)] });
        assert!(epochs.is_over(product, 2));
        assert!(!epochs.is_over(product, 3) && !epochs.is_over(product, 4));
        assert!(!epochs.is_over(ProductId::try_from(8).unwrap(), 1));
        assert_eq!(epochs.since(), Some(at(-60)));
        epochs.take_over(EpochsBegun { now: at(1), begun: vec![(product, 2)] });
        assert!(epochs.is_over(product, 2), "an answer that came late");
    }

    #[test]
    fn after_the_clock_went_back_everything_is_read_again() {
        let epochs = NewestEpochs::default();
        epochs.take_over(EpochsBegun { now: at(100), begun: Vec::new() });
        epochs.take_over(EpochsBegun { now: at(20), begun: Vec::new() });
        assert_eq!(epochs.since(), None);
        epochs.take_over(EpochsBegun { now: at(21), begun: Vec::new() });
        assert_eq!(epochs.since(), Some(at(-39)));
    }
}
