//! Deliveries that could not be written and are put off: they are tried again, and others are written in between. They stay
//! unacknowledged, so a restart brings them back. What is hopeless is set aside: it becomes a dead letter.
//!
//! Only what has waited for [`PATIENCE`] while others were written is hopeless. When nothing else is written, it is the
//! database that is wrong, and everything waits, as far as there is room: what waits here counts against what the broker hands out.
//! A barrier is another matter: the sale is closed until it is passed, so what has waited for [`PATIENCE`] is set aside then.
//!
//! The time is an argument, so that tests need no clock.

use std::time::{Duration, Instant};

use crate::model::{OrderId, ProductId};
use crate::queue::{Delivery, MessagePart};
use crate::telemetry::LogThrottle;

/// A replica that took over has caught up by then.
const PATIENCE: Duration = Duration::from_secs(30);
/// Nobody remembers for longer when something failed that does not wait here.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// Above this, for all consumers together, they might use up what the broker hands out unacknowledged, and nothing else could
/// come: then those that have waited for [`PATIENCE`] are set aside, the oldest first. The broker counts messages, and here the parts
/// of a message are counted, up to 500 of one bundle. So this limit may be reached too early, but not too late.
const MAX_WAITING: usize = 768;

/// Lines about messages that are put off.
static PUT_OFF: LogThrottle = LogThrottle::each_second();

/// What can be put off.
pub(super) trait Deferrable: AsRef<MessagePart> {
    /// The broker has it back, for its connection has failed: it comes again on the next one.
    fn is_given_back(&self) -> bool;
}

impl Deferrable for Delivery {
    fn is_given_back(&self) -> bool {
        Delivery::is_given_back(self)
    }
}

/// See the module.
pub(super) struct PutOff<D> {
    waiting: Vec<Waiting<D>>,
    /// When each of them failed first.
    known: Vec<Known>,
    /// Purchase groups that were written.
    groups_written: usize,
    looked_at: Instant,
    max_waiting: usize,
}

struct Waiting<D> {
    delivery: D,
    reason: String,
}

struct Known {
    order: OrderId,
    first_failed_at: Instant,
    written_before: usize,
}

impl<D: Deferrable> PutOff<D> {
    /// For one of so many consumers.
    pub(super) fn new(consumers: usize, now: Instant) -> Self {
        let max_waiting = (MAX_WAITING / consumers).max(1);
        Self { waiting: Vec::new(), known: Vec::new(), groups_written: 0, looked_at: now, max_waiting }
    }

    /// Notes that other deliveries became orders.
    pub(super) fn written(&mut self, groups: usize) {
        self.groups_written += groups;
    }

    /// Adds a delivery that has just failed; which are hopeless now.
    pub(super) fn add(&mut self, delivery: D, reason: String, now: Instant) -> Vec<(D, String)> {
        let Some(order) = first_order(&delivery) else { return vec![(delivery, reason)] };
        let known = match self.known.iter().position(|known| known.order == order) {
            Some(index) => index,
            None => {
                if let Some(untold) = PUT_OFF.now() {
                    tracing::warn!(
                        reason,
                        untold,
                        "A message cannot be written: it is tried again for {PATIENCE:?}, then set aside if others are written"
                    );
                }
                // Of some nothing more is heard: they came again at another instance.
                let waiting = &self.waiting;
                self.known.retain(|known| {
                    now.saturating_duration_since(known.first_failed_at) < FORGOTTEN_AFTER
                        || waiting.iter().any(|waiting| first_order(&waiting.delivery) == Some(known.order))
                });
                self.known.push(Known { order, first_failed_at: now, written_before: self.groups_written });
                self.known.len() - 1
            }
        };
        let Known { first_failed_at, written_before, .. } = self.known[known];
        let waited = now.saturating_duration_since(first_failed_at);
        if waited >= PATIENCE && self.groups_written > written_before {
            self.known.remove(known);
            return vec![(delivery, reason)];
        }
        if delivery.is_given_back() {
            return Vec::new();
        }
        // Nothing else may be dropped: it would stay unacknowledged. Two messages can begin with the same order, for a click that is
        // repeated before its confirm is published again.
        self.waiting.retain(|other| !other.delivery.is_given_back());
        self.waiting.push(Waiting { delivery, reason });
        if self.waiting.len() <= self.max_waiting || waited < PATIENCE {
            return Vec::new();
        }
        let Waiting { delivery, reason } = self.waiting.remove(0);
        self.forget(&delivery);
        vec![(delivery, reason)]
    }

    /// Whether a delivery has failed before.
    pub(super) fn knows(&self, delivery: &D) -> bool {
        known_as(&self.known, delivery).is_some()
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
        (!self.waiting.is_empty()).then(|| PAUSE.saturating_sub(now.saturating_duration_since(self.looked_at)))
    }

    /// Takes all of them, when it is time.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<D> {
        if self.due_in(now) != Some(Duration::ZERO) {
            return Vec::new();
        }
        self.looked_at = now;
        self.waiting.drain(..).map(|waiting| waiting.delivery).collect()
    }

    /// Takes those of one product.
    pub(super) fn take_of(&mut self, product: ProductId) -> Vec<D> {
        let of_product = |waiting: &mut Waiting<D>| waiting.delivery.as_ref().product_id() == product;
        self.waiting.extract_if(.., of_product).map(|waiting| waiting.delivery).collect()
    }

    /// Takes those of one product that have waited for [`PATIENCE`], and why, whatever was written meanwhile.
    pub(super) fn take_overdue_of(&mut self, product: ProductId, now: Instant) -> Vec<(D, String)> {
        let known = &self.known;
        let is_overdue = |waiting: &mut Waiting<D>| {
            waiting.delivery.as_ref().product_id() == product
                && known_as(known, &waiting.delivery)
                    .is_some_and(|known| now.saturating_duration_since(known.first_failed_at) >= PATIENCE)
        };
        let overdue: Vec<_> = self.waiting.extract_if(.., is_overdue).collect();
        for waiting in &overdue {
            self.forget(&waiting.delivery);
        }
        overdue.into_iter().map(|waiting| (waiting.delivery, waiting.reason)).collect()
    }

    /// Whether one of this product waits.
    pub(super) fn holds(&self, product: ProductId) -> bool {
        self.waiting.iter().any(|waiting| waiting.delivery.as_ref().product_id() == product)
    }
}

fn known_as<'k>(known: &'k [Known], delivery: &impl AsRef<MessagePart>) -> Option<&'k Known> {
    let order = first_order(delivery);
    known.iter().find(|known| Some(known.order) == order)
}

fn first_order(delivery: &impl AsRef<MessagePart>) -> Option<OrderId> {
    match delivery.as_ref() {
        MessagePart::Purchases(group) => group.items.first().map(|purchase| purchase.order_id),
        MessagePart::Barrier(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumers::testing::purchases;

    #[derive(Debug, Clone, PartialEq)]
    struct Delivered {
        message: MessagePart,
        is_given_back: bool,
    }

    impl AsRef<MessagePart> for Delivered {
        fn as_ref(&self) -> &MessagePart {
            &self.message
        }
    }

    impl Deferrable for Delivered {
        fn is_given_back(&self) -> bool {
            self.is_given_back
        }
    }

    fn message(product: i64) -> Delivered {
        Delivered { message: purchases(product, 1, 1), is_given_back: false }
    }

    fn reason() -> String {
        "absent".to_owned()
    }

    #[test]
    fn what_was_put_off_is_looked_at_again_after_a_pause() {
        let (start, one) = (Instant::now(), message(1));
        let mut put_off = PutOff::new(1, start);
        assert_eq!(put_off.due_in(start), None, "there is nothing");
        assert!(put_off.add(one.clone(), reason(), start).is_empty());
        assert_eq!(put_off.due_in(start + PAUSE / 2), Some(PAUSE / 2));
        assert!(put_off.take_due(start + PAUSE / 2).is_empty());
        assert_eq!(put_off.take_due(start + PAUSE), [one]);
        assert_eq!(put_off.due_in(start + PAUSE), None);
    }

    #[test]
    fn a_message_is_hopeless_once_it_has_waited_and_others_were_written() {
        let (start, one) = (Instant::now(), message(1));
        let late = start + PATIENCE;
        let mut put_off = PutOff::new(1, start);
        assert!(put_off.add(one.clone(), reason(), start).is_empty());
        assert_eq!(put_off.take_due(start + PAUSE).len(), 1);
        let before = Delivered { is_given_back: true, ..one.clone() };
        assert!(put_off.add(before, reason(), start + PAUSE).is_empty(), "its connection has failed: it comes again");
        assert!(!put_off.holds(1.try_into().unwrap()));
        assert!(put_off.add(one.clone(), reason(), late).is_empty(), "nothing was written: it is the database");
        assert_eq!(
            put_off.take_due(late),
            std::slice::from_ref(&one),
            "it came again on another connection, and waits once"
        );
        put_off.written(1);
        assert_eq!(put_off.add(one.clone(), reason(), late), [(one.clone(), reason())]);
        assert!(
            put_off.add(one.clone(), reason(), late).is_empty(),
            "set aside, and it comes again: its patience is new"
        );
        put_off.forget(&one);
        assert!(put_off.add(one, reason(), late + PATIENCE).is_empty(), "written meanwhile: its patience is new");
    }

    #[test]
    fn the_oldest_is_set_aside_when_too_many_wait_for_too_long() {
        let start = Instant::now();
        let late = start + PATIENCE;
        let mut put_off = PutOff::new(3, start);
        let messages: Vec<Delivered> = (1..=MAX_WAITING as i64 / 3 + 1).map(message).collect();
        for message in &messages {
            assert!(put_off.add(message.clone(), reason(), start).is_empty());
        }
        let newest = messages.last().unwrap();
        assert_eq!(put_off.add(newest.clone(), reason(), late), [(messages[0].clone(), reason())]);
    }

    #[test]
    fn of_two_messages_with_the_same_order_none_is_dropped() {
        let (start, one) = (Instant::now(), message(1));
        let mut put_off = PutOff::new(1, start);
        put_off.add(one.clone(), reason(), start);
        put_off.add(one.clone(), reason(), start);
        assert_eq!(put_off.take_due(start + PAUSE), [one.clone(), one.clone()]);
        // One of them is refused again, the other is written.
        put_off.add(one.clone(), reason(), start + PAUSE);
        put_off.forget(&one);
        let product = 1.try_into().unwrap();
        assert!(put_off.take_overdue_of(product, start + PAUSE).is_empty() && put_off.holds(product));
    }

    #[test]
    fn what_is_put_off_holds_the_barrier_of_its_product_back_for_a_while() {
        let (start, one, other) = (Instant::now(), message(1), message(2));
        let product = 1.try_into().unwrap();
        let mut put_off = PutOff::new(1, start);
        put_off.add(other.clone(), reason(), start);
        assert!(!put_off.holds(product));
        put_off.add(one.clone(), reason(), start);
        assert!(put_off.take_overdue_of(product, start + PATIENCE / 2).is_empty() && put_off.holds(product));
        assert_eq!(put_off.take_overdue_of(product, start + PATIENCE), [(one.clone(), reason())]);
        assert!(!put_off.holds(product) && !put_off.knows(&one) && put_off.knows(&other));
    }

    #[test]
    fn a_barrier_takes_what_was_put_off_of_its_product() {
        let (start, one, other) = (Instant::now(), message(1), message(2));
        let mut put_off = PutOff::new(1, start);
        put_off.add(one.clone(), reason(), start);
        put_off.add(other.clone(), reason(), start);
        assert_eq!(put_off.take_of(1.try_into().unwrap()), [one]);
        assert_eq!(put_off.take_due(start + PAUSE), [other]);
    }
}
