use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use seckill::config::Backend;
use seckill::model::{Purchase, PurchaseBatch};
use seckill::queue::{BATCH_MAX, Delivery, Message, OrderQueue};
use tokio::sync::mpsc::Receiver;

use crate::support::{Stores, eventually};
use crate::{on_both_backends, product, purchase};

/// A queue that is ready, and what it delivers.
async fn queue(stores: &Stores) -> (Arc<OrderQueue>, Vec<Receiver<Delivery>>) {
    let queue = Arc::new(match stores.config().backend {
        Backend::Embedded => {
            let folder = stores.config().embedded.data_dir;
            std::fs::create_dir_all(&folder).unwrap();
            OrderQueue::embedded(&folder.join("journal.db")).unwrap()
        }
        Backend::Distributed => OrderQueue::rabbitmq(&stores.config().rabbitmq).unwrap(),
    });
    let deliveries = queue.start(2);
    eventually("the queue is ready", || async { queue.is_ready() }).await;
    (queue, deliveries)
}

fn batch(id: i64, purchases: i64) -> PurchaseBatch {
    PurchaseBatch { product_id: product(id), epoch: 1, items: (1..=purchases).map(purchase).collect() }
}

/// Acknowledges everything that comes, and reports it.
fn consume(deliveries: Vec<Receiver<Delivery>>) -> tokio::sync::mpsc::UnboundedReceiver<(usize, PurchaseBatch)> {
    let (reported, report) = tokio::sync::mpsc::unbounded_channel();
    for (consumer, mut deliveries) in deliveries.into_iter().enumerate() {
        let reported = reported.clone();
        tokio::spawn(async move {
            while let Some(delivery) = deliveries.recv().await {
                let Message::Purchases(batch) = delivery.message() else { panic!("a barrier nobody sent") };
                reported.send((consumer, batch.clone())).unwrap();
                delivery.ack().await;
            }
        });
    }
    report
}

on_both_backends! {
    async fn what_is_confirmed_is_delivered_as_it_was(stores) {
        let (queue, deliveries) = queue(stores).await;
        let mut delivered = consume(deliveries);
        for sent in [batch(1, 1), batch(2, 3), batch(3, BATCH_MAX as i64)] {
            queue.publish(&sent).await.unwrap();
            assert_eq!(delivered.recv().await.unwrap().1, sent);
        }
        queue.stop().await;
    }

    async fn many_publishers_each_get_their_own_confirm(stores) {
        let (queue, deliveries) = queue(stores).await;
        let mut delivered = consume(deliveries);
        let batches: Vec<PurchaseBatch> = (0..500).map(|id| batch(1 + id % 7, 2)).collect();
        let results = join_all(batches.iter().map(|batch| queue.publish(batch))).await;
        assert!(results.iter().all(Result::is_ok));
        let mut expected: HashSet<Purchase> = batches.iter().flat_map(|batch| batch.items.clone()).collect();
        let mut consumer_of = std::collections::HashMap::new();
        for _ in 0..batches.len() {
            let (consumer, batch) = delivered.recv().await.unwrap();
            assert_eq!(*consumer_of.entry(batch.product_id).or_insert(consumer), consumer, "one product, one consumer");
            for item in batch.items {
                assert!(expected.remove(&item), "{item:?} came twice");
            }
        }
        assert!(expected.is_empty());
        queue.stop().await;
    }

    async fn batches_of_one_product_come_in_their_order(stores) {
        let (queue, deliveries) = queue(stores).await;
        let mut delivered = consume(deliveries);
        let batches: Vec<PurchaseBatch> = (0..50).map(|_| batch(1, 1)).collect();
        let sender = queue.clone();
        let sent = batches.clone();
        tokio::spawn(async move {
            for batch in sent {
                sender.publish(&batch).await.unwrap();
            }
        });
        for batch in batches {
            assert_eq!(delivered.recv().await.unwrap().1, batch);
        }
        queue.stop().await;
    }

    async fn a_queue_without_room_refuses_at_once_and_recovers(stores) {
        let (queue, mut deliveries) = queue(stores).await;
        // Nobody acknowledges. The embedded queue is bounded by purchases, RabbitMQ's publisher by messages.
        let full = batch(1, BATCH_MAX as i64);
        let publishers = if stores.config().backend == Backend::Embedded { 200 } else { 4000 };
        let attempts: Vec<_> = (0..publishers)
            .map(|_| {
                let (queue, full) = (queue.clone(), full.clone());
                tokio::spawn(async move { queue.publish(&full).await })
            })
            .collect();
        let results = tokio::time::timeout(Duration::from_secs(60), join_all(attempts)).await.unwrap();
        let refused = results.iter().filter(|result| result.as_ref().unwrap().is_err()).count();
        assert!(refused > 0, "{publishers} batches found room");
        for deliveries in &mut deliveries {
            while let Ok(delivery) = deliveries.try_recv() {
                delivery.ack().await;
            }
        }
        let mut delivered = consume(deliveries);
        eventually("there is room again", || async { queue.is_ready() }).await;
        let last = batch(2, 1);
        queue.publish(&last).await.unwrap();
        while delivered.recv().await.unwrap().1 != last {}
        queue.stop().await;
    }
}
