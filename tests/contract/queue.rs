use std::collections::HashSet;
use std::path::PathBuf;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use seckill::config::Backend;
use seckill::model::{Purchase, PurchaseGroup, Revision};
use seckill::queue::{
    Chosen, DeadLetter, DeadLetters, Delivery, MAX_PURCHASES_A_MESSAGE, MessagePart, OrderQueue, PublishError, PutBack,
};
use seckill::supervision::Supervisor;
use seckill::telemetry::Metrics;
use tokio::sync::mpsc::Receiver;

use crate::support::{Stores, eventually};
use crate::{on_both_backends, product, purchase};

/// How long a delivery may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where many at once wait for a broker that gets no time from its machine.
const STARVED: Duration = Duration::from_secs(60);

fn journal(stores: &Stores) -> PathBuf {
    let folder = stores.config().embedded.data_dir;
    std::fs::create_dir_all(&folder).unwrap();
    folder.join("journal.db")
}

/// A queue that is ready, and what it delivers.
async fn queue(stores: &Stores) -> (Arc<OrderQueue>, Vec<Receiver<Delivery>>) {
    let queue = Arc::new(match stores.config().backend {
        Backend::Embedded => OrderQueue::embedded(&journal(stores)).unwrap(),
        Backend::Distributed => OrderQueue::rabbitmq(&stores.config().rabbitmq).unwrap(),
    });
    let deliveries = queue.start(2, &Supervisor::new(Metrics::new().task_restarts));
    eventually("the queue is ready", || async { queue.is_ready() }).await;
    (queue, deliveries)
}

fn group(id: i64, purchases: i64) -> PurchaseGroup {
    PurchaseGroup {
        product_id: product(id),
        epoch: 1,
        revision: Some(Revision::FIRST),
        items: (1..=purchases).map(purchase).collect(),
        traced: Vec::new(),
    }
}

async fn dead_letters(stores: &Stores) -> DeadLetters {
    match stores.config().backend {
        Backend::Embedded => DeadLetters::embedded(&journal(stores)).unwrap(),
        Backend::Distributed => DeadLetters::rabbitmq(&stores.config().rabbitmq).await.unwrap(),
    }
}

/// The next delivery, of whichever consumer.
async fn next(deliveries: &mut [Receiver<Delivery>]) -> Delivery {
    let coming = deliveries.iter_mut().map(|deliveries| Box::pin(deliveries.recv()));
    let first = tokio::time::timeout(PATIENCE, futures_util::future::select_all(coming)).await;
    first.expect("a delivery").0.unwrap()
}

/// Publishes until it is confirmed: a broker that gets no time from its machine may confirm later than the queue waits. True:
/// at once, so it is delivered once.
async fn publish_until_confirmed(queue: &OrderQueue, group: &PurchaseGroup) -> bool {
    let begun = Instant::now();
    let mut at_once = true;
    loop {
        match queue.publish(from_ref(group)).await {
            Ok(()) => return at_once,
            Err(PublishError::Unclear | PublishError::Unavailable) if begun.elapsed() < STARVED => at_once = false,
            Err(error) => panic!("{error} after {:?}", begun.elapsed()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Acknowledges everything that comes, and reports it.
fn consume(deliveries: Vec<Receiver<Delivery>>) -> tokio::sync::mpsc::UnboundedReceiver<(usize, PurchaseGroup)> {
    let (reported, report) = tokio::sync::mpsc::unbounded_channel();
    for (consumer, mut deliveries) in deliveries.into_iter().enumerate() {
        let reported = reported.clone();
        tokio::spawn(async move {
            while let Some(delivery) = deliveries.recv().await {
                let MessagePart::Purchases(group) = delivery.message() else { panic!("a barrier nobody sent") };
                reported.send((consumer, group.clone())).unwrap();
                Delivery::ack_all(vec![delivery]).await;
            }
        });
    }
    report
}

/// Puts letters back as they are; how many.
async fn replay(letters: &mut DeadLetters, chosen: &Chosen) -> Result<usize, String> {
    let as_it_is = async |letter: &DeadLetter| Ok(PutBack { message: Some(letter.body.clone()), kept: None });
    letters.replay(chosen, as_it_is).await.map(|replayed| replayed.letters)
}

on_both_backends! {
    async fn what_is_confirmed_is_delivered_as_it_was(stores) {
        let (queue, deliveries) = queue(stores).await;
        let mut delivered = consume(deliveries);
        for sent in [group(1, 1), group(2, 3), group(3, MAX_PURCHASES_A_MESSAGE as i64)] {
            queue.publish(from_ref(&sent)).await.unwrap();
            assert_eq!(delivered.recv().await.unwrap().1, sent);
        }
        queue.stop().await;
    }

    async fn many_publishers_each_get_their_own_confirm(stores) {
        let (queue, deliveries) = queue(stores).await;
        let mut delivered = consume(deliveries);
        let groups: Vec<PurchaseGroup> = (0..500).map(|id| group(1 + id % 7, 2)).collect();
        let at_once = join_all(groups.iter().map(|group| publish_until_confirmed(&queue, group))).await;
        let items = |group: &PurchaseGroup| group.items.clone();
        let mut expected: HashSet<Purchase> = groups.iter().flat_map(items).collect();
        let repeated = groups.iter().zip(at_once).filter(|(_, at_once)| !at_once);
        let repeated: HashSet<Purchase> = repeated.flat_map(|(group, _)| items(group)).collect();
        let mut consumer_of = std::collections::HashMap::new();
        while !expected.is_empty() {
            let (consumer, group) = tokio::time::timeout(STARVED, delivered.recv()).await.expect("a delivery").unwrap();
            assert_eq!(*consumer_of.entry(group.product_id).or_insert(consumer), consumer, "one product, one consumer");
            for item in group.items {
                assert!(expected.remove(&item) || repeated.contains(&item), "{item:?} came twice");
            }
        }
        queue.stop().await;
    }

    async fn messages_of_one_product_come_in_their_order(stores) {
        let (queue, deliveries) = queue(stores).await;
        let mut delivered = consume(deliveries);
        let groups: Vec<PurchaseGroup> = (0..50).map(|_| group(1, 1)).collect();
        let sender = queue.clone();
        let sent = groups.clone();
        tokio::spawn(async move {
            for group in sent {
                sender.publish(from_ref(&group)).await.unwrap();
            }
        });
        for group in groups {
            assert_eq!(delivered.recv().await.unwrap().1, group);
        }
        queue.stop().await;
    }

    async fn what_was_not_acknowledged_is_delivered_to_the_next_process(stores) {
        let (first, mut deliveries) = queue(stores).await;
        let sent = [group(1, 1), group(1, 2)];
        for group in &sent {
            first.publish(from_ref(group)).await.unwrap();
        }
        Delivery::ack_all(vec![next(&mut deliveries).await]).await;
        drop(next(&mut deliveries).await);
        first.stop().await;
        drop((first, deliveries));
        let (second, mut deliveries) = queue(stores).await;
        let again = next(&mut deliveries).await;
        assert_eq!(again.message(), &MessagePart::Purchases(sent[1].clone()));
        Delivery::ack_all(vec![again]).await;
        second.stop().await;
    }

    async fn what_was_acknowledged_out_of_order_does_not_come_again(stores) {
        let (first, mut deliveries) = queue(stores).await;
        // Two products, so two consumers where there are that many.
        let sent: Vec<_> = (0..8).map(|number| group(1 + number % 2, 1)).collect();
        for group in &sent {
            first.publish(from_ref(group)).await.unwrap();
        }
        let mut received: Vec<Option<Delivery>> = sent.iter().map(|_| None).collect();
        for _ in &sent {
            let delivery = next(&mut deliveries).await;
            let place = sent.iter().position(|sent| *delivery.message() == MessagePart::Purchases(sent.clone()));
            received[place.unwrap()] = Some(delivery);
        }
        for acknowledged in [vec![7, 2, 3], vec![1, 0, 5], vec![6]] {
            Delivery::ack_all(acknowledged.into_iter().map(|place| received[place].take().unwrap()).collect()).await;
        }
        drop(received);
        first.stop().await;
        drop((first, deliveries));
        let (second, mut deliveries) = queue(stores).await;
        let again = next(&mut deliveries).await;
        assert_eq!(again.message(), &MessagePart::Purchases(sent[4].clone()));
        Delivery::ack_all(vec![again]).await;
        let more = tokio::time::timeout(Duration::from_millis(500), next(&mut deliveries)).await;
        assert!(more.is_err(), "{:?}", more.ok().map(|delivery| delivery.message().clone()));
        second.stop().await;
    }

    /// A journal takes each product by itself. Guards against: a message that is forgotten when one of its products is written.
    async fn a_bundle_is_forgotten_with_the_last_of_its_products(stores) {
        let (first, mut deliveries) = queue(stores).await;
        let sent: Vec<_> = (1..=3).map(|id| group(id, id)).collect();
        first.publish(&sent).await.unwrap();
        let mut received = Vec::new();
        for _ in &sent {
            received.push(next(&mut deliveries).await);
        }
        received.sort_by_key(|delivery| delivery.message().product_id());
        let messages: Vec<_> = received.iter().map(|delivery| delivery.message().clone()).collect();
        assert_eq!(messages, sent.iter().cloned().map(MessagePart::Purchases).collect::<Vec<_>>());
        // One written, one set aside; the process ends before the third is either.
        let (third, second) = (received.pop().unwrap(), received.pop().unwrap());
        Delivery::ack_all(received).await;
        second.set_aside("because").await;
        drop(third);
        first.stop().await;
        drop((first, deliveries));

        let (second, mut deliveries) = queue(stores).await;
        let is_whole = stores.config().backend == Backend::Distributed;
        let mut again = Vec::new();
        for _ in 0..if is_whole { 3 } else { 1 } {
            again.push(next(&mut deliveries).await);
        }
        assert!(again.iter().any(|delivery| *delivery.message() == messages[2]), "the third product is lost");
        Delivery::ack_all(again).await;
        second.stop().await;
        drop((second, deliveries));
        let (third, mut deliveries) = queue(stores).await;
        let more = tokio::time::timeout(Duration::from_millis(500), next(&mut deliveries)).await;
        assert!(more.is_err(), "{:?}", more.ok().map(|delivery| delivery.message().clone()));
        third.stop().await;
        drop((third, deliveries));
        // What was set aside is the product that was, and nothing of the others.
        let mut letters = dead_letters(stores).await;
        let listed = letters.list().await.unwrap();
        letters.close().await;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].content(), (Some(2.into()), 2));
    }

    /// (peers 14)
    async fn what_is_set_aside_can_be_seen_repeated_and_dropped(stores) {
        let (first, mut deliveries) = queue(stores).await;
        let sent = group(1, 2);
        first.publish(from_ref(&sent)).await.unwrap();
        next(&mut deliveries).await.set_aside("because").await;
        first.stop().await;
        drop((first, deliveries));

        let mut letters = dead_letters(stores).await;
        for _ in 0..2 {
            let listed = letters.list().await.unwrap();
            letters.close().await;
            let order = sent.items[1].order_id.to_string();
            assert_eq!(listed.len(), 1);
            assert_eq!(listed[0].reason.as_deref(), Some("because"));
            assert!(String::from_utf8_lossy(&listed[0].body).contains(&order));
            letters = dead_letters(stores).await;
        }
        assert_eq!(replay(&mut letters, &Chosen::All).await, Ok(1));
        assert_eq!(replay(&mut letters, &Chosen::All).await, Ok(0));
        letters.close().await;

        let (second, mut deliveries) = queue(stores).await;
        let again = next(&mut deliveries).await;
        assert_eq!(again.message(), &MessagePart::Purchases(sent));
        again.set_aside("again").await;
        second.stop().await;
        drop((second, deliveries));
        let mut letters = dead_letters(stores).await;
        assert_eq!(letters.remove(&Chosen::All).await.unwrap(), 1);
        assert_eq!(letters.list().await.unwrap(), []);
        letters.close().await;
    }

    async fn dead_letters_are_chosen_by_their_ids(stores) {
        let (first, mut deliveries) = queue(stores).await;
        let begun = seckill::model::Timestamp::now().unix_ms() - 1000;
        for purchases in 1..=3 {
            first.publish(&[group(purchases, purchases)]).await.unwrap();
            next(&mut deliveries).await.set_aside("because").await;
        }
        first.stop().await;
        drop((first, deliveries));

        let mut letters = dead_letters(stores).await;
        let listed = letters.list().await.unwrap();
        letters.close().await;
        assert_eq!(listed.len(), 3);
        for letter in &listed {
            let (product, purchases) = letter.content();
            assert_eq!(product.unwrap(), purchases);
            assert!(letter.parked_at.unwrap().unix_ms() >= begun);
        }
        let chosen = |letters: &[&seckill::queue::DeadLetter]| {
            Chosen::Ids(letters.iter().map(|letter| letter.id.clone()).collect())
        };
        let mut letters = dead_letters(stores).await;
        let unknown = Chosen::Ids(vec![listed[0].id.clone(), "nobody".to_owned()]);
        assert!(replay(&mut letters, &unknown).await.unwrap_err().contains("nobody"));
        letters.close().await;
        let mut letters = dead_letters(stores).await;
        assert!(letters.remove(&unknown).await.unwrap_err().contains("nobody"));
        letters.close().await;
        let mut letters = dead_letters(stores).await;
        assert_eq!(letters.remove(&chosen(&[&listed[0]])).await.unwrap(), 1);
        letters.close().await;
        let mut letters = dead_letters(stores).await;
        assert_eq!(replay(&mut letters, &chosen(&[&listed[2]])).await, Ok(1));
        letters.close().await;
        let mut letters = dead_letters(stores).await;
        assert_eq!(letters.list().await.unwrap(), [listed[1].clone()]);
        letters.close().await;

        let (second, mut deliveries) = queue(stores).await;
        let again = next(&mut deliveries).await;
        assert_eq!(again.purchases().len(), listed[2].content().1);
        Delivery::ack_all(vec![again]).await;
        second.stop().await;
    }

    async fn a_queue_without_room_refuses_at_once_and_recovers(stores) {
        let (queue, mut deliveries) = queue(stores).await;
        // Nobody acknowledges. The embedded queue is bounded by purchases, RabbitMQ's publisher by messages.
        let full = group(1, MAX_PURCHASES_A_MESSAGE as i64);
        let publishers = if stores.config().backend == Backend::Embedded { 200 } else { 4000 };
        let attempts: Vec<_> = (0..publishers)
            .map(|_| {
                let (queue, full) = (queue.clone(), full.clone());
                tokio::spawn(async move { queue.publish(from_ref(&full)).await })
            })
            .collect();
        let results = tokio::time::timeout(Duration::from_secs(60), join_all(attempts)).await.unwrap();
        let refused = results.iter().filter(|result| result.as_ref().unwrap().is_err()).count();
        assert!(refused > 0, "{publishers} messages found room");
        for deliveries in &mut deliveries {
            while let Ok(delivery) = deliveries.try_recv() {
                Delivery::ack_all(vec![delivery]).await;
            }
        }
        let mut delivered = consume(deliveries);
        eventually("there is room again", || async { queue.is_ready() }).await;
        let last = group(2, 1);
        queue.publish(from_ref(&last)).await.unwrap();
        while delivered.recv().await.unwrap().1 != last {}
        queue.stop().await;
    }
}
