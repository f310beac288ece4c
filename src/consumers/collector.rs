//! Collects the messages of one write batch: the orders of one transaction.
//!
//! A transaction costs much the same however few orders it holds, and their buyers have their answer already. So a small
//! write batch waits a moment for more. A barrier ends it: what came before the barrier must be written before
//! the fence is raised.
//!
//! What a write batch waits for follows from how long it has been collected ([`WriteBatch::next_step`]), so that tests need no
//! clock, no queue and no database.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::db::WriteBatchLimits;
use crate::queue::MessagePart;

/// With as many orders a product, a write batch is worth its transaction.
const ENOUGH_A_PRODUCT: usize = 50;

/// See the module.
pub(super) struct Collector<D> {
    deliveries: mpsc::Receiver<D>,
    limits: WriteBatchLimits,
    stop: CancellationToken,
    /// What did not fit into the last write batch.
    left_over: Option<D>,
}

/// What is written in one transaction, and then the barrier behind it, if there is one.
pub(super) struct WriteBatch<D> {
    limits: WriteBatchLimits,
    /// Each with a purchase group.
    deliveries: Vec<D>,
    orders: usize,
    barrier: Option<D>,
    is_full: bool,
    /// Deliveries that it had at the last look.
    had_at_last_look: usize,
}

/// What is to be done with a write batch.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Write,
    Wait(Duration),
}

impl<D: AsRef<MessagePart>> Collector<D> {
    /// Of what comes through `deliveries`, until `stop`.
    pub(super) fn new(deliveries: mpsc::Receiver<D>, limits: WriteBatchLimits, stop: CancellationToken) -> Self {
        Self { deliveries, limits, stop, left_over: None }
    }

    /// The next write batch; empty if nothing comes within `wake`. `None`: there will be no more, or it is to stop; what was
    /// collected by then is not acknowledged, so it comes again.
    pub(super) async fn next(&mut self, wake: Option<Duration>) -> Option<WriteBatch<D>> {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.collect(wake)).await.flatten()
    }

    async fn collect(&mut self, wake: Option<Duration>) -> Option<WriteBatch<D>> {
        let mut batch = WriteBatch::new(self.limits);
        let first = match (self.left_over.take(), wake) {
            (Some(left_over), _) => left_over,
            (None, None) => self.deliveries.recv().await?,
            (None, Some(wake)) => match tokio::time::timeout(wake, self.deliveries.recv()).await {
                Ok(first) => first?,
                Err(_) => return Some(batch),
            },
        };
        self.left_over = batch.add(first);
        let begun = Instant::now();
        loop {
            while !batch.is_complete()
                && let Ok(delivery) = self.deliveries.try_recv()
            {
                self.left_over = batch.add(delivery);
            }
            match batch.next_step(begun.elapsed()) {
                Step::Write => return Some(batch),
                Step::Wait(pause) => tokio::time::sleep(pause).await,
            }
        }
    }
}

impl<D: AsRef<MessagePart>> WriteBatch<D> {
    fn new(limits: WriteBatchLimits) -> Self {
        Self { limits, deliveries: Vec::new(), orders: 0, barrier: None, is_full: false, had_at_last_look: 0 }
    }

    /// Adds a message; gives it back if it does not fit. The first one always does: a message is not divided.
    fn add(&mut self, delivery: D) -> Option<D> {
        let orders = match delivery.as_ref() {
            MessagePart::Barrier(_) => {
                self.barrier = Some(delivery);
                return None;
            }
            MessagePart::Purchases(group) => group.items.len(),
        };
        if !self.deliveries.is_empty() && self.orders + orders > self.limits.max_orders {
            self.is_full = true;
            return Some(delivery);
        }
        self.orders += orders;
        self.deliveries.push(delivery);
        None
    }

    /// Whether it takes no more.
    fn is_complete(&self) -> bool {
        self.is_full || self.barrier.is_some()
    }

    /// What to do with a write batch that has been collected for so long, and has all that has come by now.
    fn next_step(&mut self, waited: Duration) -> Step {
        let WriteBatchLimits { linger, max_linger, .. } = self.limits;
        let enough = self.orders >= self.products() * ENOUGH_A_PRODUCT;
        // One that does not grow any more may hold all that can come before something is acknowledged.
        let has_stopped_growing = self.deliveries.len() == self.had_at_last_look;
        if self.is_complete() || waited >= linger && (enough || has_stopped_growing || waited >= max_linger) {
            return Step::Write;
        }
        self.had_at_last_look = self.deliveries.len();
        Step::Wait(linger)
    }

    fn products(&self) -> usize {
        self.deliveries.iter().map(|delivery| delivery.as_ref().product_id()).collect::<HashSet<_>>().len()
    }

    /// The messages of purchases in the order they came, and the barrier behind them.
    pub(super) fn into_parts(self) -> (Vec<D>, Option<D>) {
        (self.deliveries, self.barrier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumers::testing;
    use crate::queue::Barrier;

    const LINGER: Duration = Duration::from_millis(20);
    const MAX_LINGER: Duration = Duration::from_millis(100);
    const LIMITS: WriteBatchLimits = WriteBatchLimits { max_orders: 200, linger: LINGER, max_linger: MAX_LINGER };

    fn purchases(product: i64, orders: i64) -> MessagePart {
        testing::purchases(product, 1, orders)
    }

    fn barrier(product: i64) -> MessagePart {
        MessagePart::Barrier(Barrier { product_id: product.try_into().unwrap(), epoch: 2 })
    }

    fn write_batch_of(messages: &[MessagePart]) -> WriteBatch<MessagePart> {
        let mut batch = WriteBatch::new(LIMITS);
        for message in messages {
            assert_eq!(batch.add(message.clone()), None, "it fits");
        }
        batch
    }

    /// Messages that have come, and the collector of them. It does not wait.
    fn collector(messages: &[MessagePart]) -> (mpsc::Sender<MessagePart>, Collector<MessagePart>, CancellationToken) {
        let (sender, deliveries) = mpsc::channel(64);
        for message in messages {
            sender.try_send(message.clone()).unwrap();
        }
        let stop = CancellationToken::new();
        let limits = WriteBatchLimits { linger: Duration::ZERO, max_linger: Duration::ZERO, ..LIMITS };
        (sender, Collector::new(deliveries, limits, stop.clone()), stop)
    }

    #[test]
    fn a_write_batch_lingers_even_if_it_has_enough_orders() {
        let mut batch = write_batch_of(&[purchases(1, 150)]);
        assert_eq!(batch.next_step(Duration::ZERO), Step::Wait(LINGER));
        assert_eq!(batch.next_step(LINGER), Step::Write);
    }

    #[test]
    fn a_write_batch_that_grows_is_waited_for_until_it_has_enough_orders_of_each_product() {
        let mut batch = write_batch_of(&[purchases(1, 40), purchases(2, 40)]);
        assert_eq!(batch.next_step(Duration::ZERO), Step::Wait(LINGER));
        assert_eq!(batch.add(purchases(1, 10)), None);
        assert_eq!(batch.next_step(LINGER), Step::Wait(LINGER), "90 orders of two products are not enough");
        assert_eq!(batch.add(purchases(2, 10)), None);
        assert_eq!(batch.next_step(2 * LINGER), Step::Write, "100 are");
    }

    #[test]
    fn a_write_batch_that_has_stopped_growing_is_written() {
        let mut batch = write_batch_of(&[purchases(1, 1)]);
        assert_eq!(batch.next_step(Duration::ZERO), Step::Wait(LINGER));
        assert_eq!(batch.next_step(LINGER), Step::Write);
    }

    #[test]
    fn a_write_batch_that_goes_on_growing_is_written_after_the_longest_linger() {
        let mut batch = write_batch_of(&[purchases(1, 1)]);
        for product in 2.. {
            let waited = LINGER * (product as u32 - 2);
            let step = batch.next_step(waited);
            if waited >= MAX_LINGER {
                assert_eq!(step, Step::Write);
                break;
            }
            assert_eq!(step, Step::Wait(LINGER), "after {waited:?}");
            assert_eq!(batch.add(purchases(product, 1)), None);
        }
    }

    #[test]
    fn a_full_write_batch_is_written_at_once() {
        let mut batch = write_batch_of(&[purchases(1, 100), purchases(2, 100)]);
        let next = purchases(3, 1);
        assert_eq!(batch.add(next.clone()), Some(next), "it is given back");
        assert_eq!(batch.next_step(Duration::ZERO), Step::Write);
    }

    #[test]
    fn a_barrier_ends_its_write_batch_at_once() {
        let mut batch = write_batch_of(&[purchases(1, 1), barrier(1)]);
        assert_eq!(batch.next_step(Duration::ZERO), Step::Write);
        let mut alone = write_batch_of(&[barrier(1)]);
        assert_eq!(alone.next_step(Duration::ZERO), Step::Write);
    }

    #[tokio::test]
    async fn every_message_is_in_one_write_batch_in_the_order_it_came() {
        let messages = [
            purchases(1, 150),
            purchases(2, 60),
            purchases(1, 3),
            barrier(1),
            barrier(2),
            purchases(3, 500),
            purchases(3, 1),
        ];
        let (sender, mut collector, _stop) = collector(&messages);
        drop(sender);
        let mut batches = Vec::new();
        while let Some(batch) = collector.next(None).await {
            let (deliveries, barrier) = batch.into_parts();
            batches.push(deliveries.into_iter().chain(barrier).collect::<Vec<_>>());
        }
        let expected = [
            &messages[..1],
            // Ended by its barrier.
            &messages[1..4],
            &messages[4..5],
            // More than a write batch may hold, but a message is not divided.
            &messages[5..6],
            &messages[6..],
        ];
        assert_eq!(batches, expected);
    }

    #[tokio::test]
    async fn a_collector_that_is_woken_has_an_empty_write_batch() {
        let (sender, mut collector, _stop) = collector(&[]);
        let (deliveries, barrier) = collector.next(Some(Duration::ZERO)).await.unwrap().into_parts();
        assert!(deliveries.is_empty() && barrier.is_none());
        sender.try_send(purchases(1, 1)).unwrap();
        let (deliveries, _) = collector.next(Some(Duration::MAX)).await.unwrap().into_parts();
        assert_eq!(deliveries.len(), 1);
    }

    #[tokio::test]
    async fn a_collector_that_is_stopped_has_no_write_batch_though_messages_wait() {
        let (_sender, mut collector, stop) = collector(&[purchases(1, 1)]);
        stop.cancel();
        assert!(collector.next(None).await.is_none());
    }

    #[tokio::test]
    async fn a_stop_ends_the_wait_for_messages() {
        let (_sender, mut collector, stop) = collector(&[]);
        let (batch, ()) = tokio::join!(collector.next(None), async { stop.cancel() });
        assert!(batch.is_none());
    }
}
