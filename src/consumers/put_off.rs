//! Deliveries that could not be written and may be later, while others go on. They stay unacknowledged, so a restart brings
//! them back.
//!
//! Only what has waited for [`PATIENCE`] while others were written is hopeless. When nothing else is written, it is the
//! database that is wrong, and everything waits, as far as there is room: what is held counts against what the broker hands out.
//!
//! The time is an argument, so that tests need no clock.

use std::time::{Duration, Instant};

use crate::model::{OrderId, ProductId};
use crate::queue::Message;
use crate::telemetry::Seldom;

/// A replica that took over has caught up by then.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// Above this, for all consumers together, they would use up what the broker hands out unacknowledged, and nothing else could
/// come: then those that have waited for [`PATIENCE`] are parked, the oldest first.
const MAX_HELD: usize = 768;

/// Lines about messages that are put off.
static PUT_OFF: Seldom = Seldom::each_second();

/// See the module.
pub(super) struct Aside<D> {
    held: Vec<Held<D>>,
    /// When each of them failed first.
    known: Vec<Known>,
    /// Groups that were written.
    written: usize,
    looked_at: Instant,
    max_held: usize,
}

struct Held<D> {
    delivery: D,
    reason: String,
}

struct Known {
    order: OrderId,
    since: Instant,
    written_before: usize,
}

impl<D: AsRef<Message>> Aside<D> {
    /// For one of so many consumers.
    pub(super) fn new(consumers: usize, now: Instant) -> Self {
        let max_held = (MAX_HELD / consumers).max(1);
        Self { held: Vec::new(), known: Vec::new(), written: 0, looked_at: now, max_held }
    }

    /// Notes that other deliveries became orders.
    pub(super) fn written(&mut self, groups: usize) {
        self.written += groups;
    }

    /// Adds a delivery that has just failed; which are hopeless now.
    pub(super) fn add(&mut self, delivery: D, reason: String, now: Instant) -> Vec<(D, String)> {
        let Some(order) = first_order(&delivery) else { return vec![(delivery, reason)] };
        let known = match self.known.iter().position(|known| known.order == order) {
            Some(place) => place,
            None => {
                if let Some(untold) = PUT_OFF.now() {
                    tracing::warn!(
                        reason,
                        untold,
                        "A message cannot be written: it is tried again for {PATIENCE:?}, then set aside if others are written"
                    );
                }
                self.known.push(Known { order, since: now, written_before: self.written });
                self.known.len() - 1
            }
        };
        let Known { since, written_before, .. } = self.known[known];
        let waited = now.saturating_duration_since(since);
        if waited >= PATIENCE && self.written > written_before {
            self.known.remove(known);
            return vec![(delivery, reason)];
        }
        // After a connection has failed, the same message comes again on the next one.
        self.held.retain(|held| first_order(&held.delivery) != Some(order));
        self.held.push(Held { delivery, reason });
        if self.held.len() <= self.max_held || waited < PATIENCE {
            return Vec::new();
        }
        let Held { delivery, reason } = self.held.remove(0);
        self.forget(&delivery);
        vec![(delivery, reason)]
    }

    /// A delivery has become orders.
    pub(super) fn forget(&mut self, delivery: &D) {
        if !self.known.is_empty() {
            let order = first_order(delivery);
            self.known.retain(|known| Some(known.order) != order);
        }
    }

    /// When they should be looked at again.
    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        (!self.held.is_empty()).then(|| PAUSE.saturating_sub(now.saturating_duration_since(self.looked_at)))
    }

    /// Takes all of them, when it is time.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<D> {
        if self.due_in(now) != Some(Duration::ZERO) {
            return Vec::new();
        }
        self.looked_at = now;
        self.held.drain(..).map(|held| held.delivery).collect()
    }

    /// Takes those of one product.
    pub(super) fn take_of(&mut self, product: ProductId) -> Vec<D> {
        let of_product = |held: &mut Held<D>| held.delivery.as_ref().product_id() == product;
        self.held.extract_if(.., of_product).map(|held| held.delivery).collect()
    }
}

fn first_order(delivery: &impl AsRef<Message>) -> Option<OrderId> {
    match delivery.as_ref() {
        Message::Purchases(group) => group.items.first().map(|purchase| purchase.order_id),
        Message::Barrier(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumers::testing::purchases;

    fn message(product: i64) -> Message {
        purchases(product, 1, 1)
    }

    fn reason() -> String {
        "absent".to_owned()
    }

    #[test]
    fn what_was_set_aside_is_looked_at_again_after_a_pause() {
        let (start, one) = (Instant::now(), message(1));
        let mut aside = Aside::new(1, start);
        assert_eq!(aside.due_in(start), None, "there is nothing");
        assert!(aside.add(one.clone(), reason(), start).is_empty());
        assert_eq!(aside.due_in(start + PAUSE / 2), Some(PAUSE / 2));
        assert!(aside.take_due(start + PAUSE / 2).is_empty());
        assert_eq!(aside.take_due(start + PAUSE), [one]);
        assert_eq!(aside.due_in(start + PAUSE), None);
    }

    #[test]
    fn a_message_is_hopeless_once_it_has_waited_and_others_were_written() {
        let (start, one) = (Instant::now(), message(1));
        let late = start + PATIENCE;
        let mut aside = Aside::new(1, start);
        assert!(aside.add(one.clone(), reason(), start).is_empty());
        assert!(aside.add(one.clone(), reason(), late).is_empty(), "nothing was written: it is the database");
        assert_eq!(aside.take_due(late).len(), 1, "it came twice and is held once");
        aside.written(1);
        assert_eq!(aside.add(one.clone(), reason(), late), [(one.clone(), reason())]);
        assert!(aside.add(one.clone(), reason(), late).is_empty(), "parked, and it comes again: its patience is new");
        aside.forget(&one);
        assert!(aside.add(one, reason(), late + PATIENCE).is_empty(), "written meanwhile: its patience is new");
    }

    #[test]
    fn the_oldest_is_parked_when_too_many_wait_for_too_long() {
        let start = Instant::now();
        let late = start + PATIENCE;
        let mut aside = Aside::new(3, start);
        let messages: Vec<Message> = (1..=MAX_HELD as i64 / 3 + 1).map(message).collect();
        for message in &messages {
            assert!(aside.add(message.clone(), reason(), start).is_empty());
        }
        let newest = messages.last().unwrap();
        assert_eq!(aside.add(newest.clone(), reason(), late), [(messages[0].clone(), reason())]);
    }

    #[test]
    fn a_barrier_takes_what_was_set_aside_of_its_product() {
        let (start, one, other) = (Instant::now(), message(1), message(2));
        let mut aside = Aside::new(1, start);
        aside.add(one.clone(), reason(), start);
        aside.add(other.clone(), reason(), start);
        assert_eq!(aside.take_of(1.try_into().unwrap()), [one]);
        assert_eq!(aside.take_due(start + PAUSE), [other]);
    }
}
