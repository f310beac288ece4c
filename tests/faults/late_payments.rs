//! Deaths while a late payment revives its order, and a gate that is lost meanwhile: the order is paid once, nobody gets its units
//! beside it, and none is lost.

use std::time::{Duration, Instant};

use seckill::config::Backend;

use crate::books::Books;
use crate::client::{Answer, Client};
use crate::link;
use crate::payments::Buyer;
use crate::server::Server;
use crate::support::eventually_within;
use crate::trial::Trial;

/// A point is reached within this, or the test is about nothing.
const DIES_WITHIN: Duration = Duration::from_secs(30);
/// What was left in flight is decided after ten seconds.
const SWEPT_WITHIN: u64 = 30;

/// An order that its buyer has given up, with its payment on its way, in a sale of so many units.
async fn gives_up(trial: &Trial, server: &Server, stock: i64) -> Buyer {
    let buyer = Buyer::buys_of(&trial.config, server, stock).await;
    buyer.cancels().await;
    let client = Client::new(&trial.config, vec![server.url()]);
    eventually_within(10, "its unit is back", || async { client.remaining(buyer.product).await == Some(stock) }).await;
    buyer
}

/// Everything is sold but what the revived order has, and nothing more.
async fn sells_the_rest(trial: &mut Trial, buyer: &Buyer, stock: i64) {
    let client = Client::new(&trial.config, vec![buyer.url.clone()]);
    eventually_within(SWEPT_WITHIN, "the revived order has its unit", || async {
        client.remaining(buyer.product).await == Some(stock - 1)
    })
    .await;
    for user in 11..=stock + 9 {
        if !matches!(client.buy(&client.buyer(user), buyer.product, 0).await.answer, Answer::Promised { .. }) {
            trial.problem("a unit was not for sale any more");
        }
    }
    if !matches!(client.buy(&client.buyer(99), buyer.product, 0).await.answer, Answer::SoldOut) {
        trial.problem("a unit was sold twice");
    }
    eventually_within(SWEPT_WITHIN, "all is written, and nothing is owed", || async {
        let books = Books::read(&trial.config, buyer.product).await;
        books.is_ok_and(|books| (books.sold, books.owed, books.live.len() as i64) == (stock, 0, stock))
    })
    .await;
}

async fn is(trial: &mut Trial, buyer: &Buyer, expected: (&str, usize), when: &str) {
    let (status, changes) = buyer.order().await;
    if (status.as_str(), changes) != expected {
        trial.problem(format!("{when} the order is {status} after {changes} changes, not {expected:?}"));
    }
}

async fn tells_again(trial: &mut Trial, buyer: &Buyer) {
    for _ in 0..2 {
        let answer = buyer.told("evt_1").await;
        if answer != Some((200, false)) {
            trial.problem(format!("the repeat was answered {answer:?}"));
        }
    }
}

/// Dies at `point`; `before` is where the order stands then. The process comes back, and the provider comes again.
async fn dies_at(backend: Backend, point: &str, before: (&str, usize)) {
    let mut trial = Trial::begin(format!("{backend:?}: dies {}", point.replace('_', " ")), backend).await;
    let mut server = Server::start(&trial.config).await;
    let buyer = gives_up(&trial, &server, 2).await;
    server.terminate().await;
    server.restart_with(&[("FAILPOINTS", format!("{point}=return"))]).await;
    if let Some(answer) = buyer.told("evt_1").await {
        trial.problem(format!("a callback was answered {answer:?} by a process that had died"));
    }
    server.died(DIES_WITHIN).await;
    trial.injected += 1;
    server.restart().await;
    is(&mut trial, &buyer, before, "after the death").await;
    tells_again(&mut trial, &buyer).await;
    is(&mut trial, &buyer, ("paid", 2), "in the end").await;
    sells_the_rest(&mut trial, &buyer, 2).await;
    trial.finish(vec![server]).await;
}

/// Dies at `point` beside another instance. Nobody comes again: the other one's sweeper finds what was left.
async fn dies_beside_another(point: &str, before: (&str, usize)) {
    let fault = format!("one of two dies {}", point.replace('_', " "));
    let mut trial = Trial::begin(fault, Backend::Distributed).await;
    let mut shaky = Server::start(&trial.config).await;
    let mut buyer = gives_up(&trial, &shaky, 1).await;
    shaky.terminate().await;
    shaky.restart_with(&[("FAILPOINTS", format!("{point}=return"))]).await;
    let steady = Server::start(&trial.config).await;
    if let Some(answer) = buyer.told("evt_1").await {
        trial.problem(format!("a callback was answered {answer:?} by a process that had died"));
    }
    shaky.died(DIES_WITHIN).await;
    trial.injected += 1;
    buyer.url = steady.url();
    is(&mut trial, &buyer, before, "right after the death").await;
    // The gate holds its unit, whether it is decided or not.
    let client = Client::new(&trial.config, vec![steady.url()]);
    if !matches!(client.buy(&client.buyer(50), buyer.product, 0).await.answer, Answer::SoldOut) {
        trial.problem("a unit that is held for a late payment was sold");
    }
    eventually_within(SWEPT_WITHIN, "the sweeper has paid the order", || async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        buyer.order().await == ("paid".to_owned(), 2)
    })
    .await;
    tells_again(&mut trial, &buyer).await;
    is(&mut trial, &buyer, ("paid", 2), "in the end").await;
    sells_the_rest(&mut trial, &buyer, 1).await;
    trial.finish(vec![steady]).await;
}

macro_rules! dies {
    ($($(#[doc = $doc:literal])+ $point:ident: $before:expr;)+) => {
        mod embedded {
            use super::*;
            $($(#[doc = $doc])+
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $point() {
                dies_at(Backend::Embedded, stringify!($point), $before).await;
            })+
        }

        mod distributed {
            use super::*;
            $($(#[doc = $doc])+
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $point() {
                dies_at(Backend::Distributed, stringify!($point), $before).await;
            })+
        }

        mod one_of_two {
            use super::*;
            $($(#[doc = $doc])+
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $point() {
                dies_beside_another(stringify!($point), $before).await;
            })+
        }
    };
}

dies! {
    /// The gate holds units for it, and the database does not know.
    after_late_admission: ("cancelled", 1);

    /// The same, in the middle of the transaction.
    before_late_commit: ("cancelled", 1);

    /// The order is paid, and the gate does not know that it is decided.
    after_late_commit: ("paid", 2);
}

/// What the gate has said is worth nothing once another gate was filled without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_is_lost_between_admission_and_commit_revives_nothing() {
    let mut trial = Trial::begin("Redis emptied while a late payment is decided", Backend::Distributed).await;
    let mut shaky = Server::start(&trial.config).await;
    let mut buyer = gives_up(&trial, &shaky, 1).await;
    // It comes first, so it is the one that consumes: a rebuild sends a barrier through the queue, and waits for a consumer that sleeps.
    let steady = Server::start(&trial.config).await;
    shaky.terminate().await;
    // Longer than a rebuild takes.
    shaky.restart_with(&[("FAILPOINTS", "after_late_admission=1*sleep(9000)".to_owned())]).await;
    let client = Client::new(&trial.config, vec![steady.url()]);
    let emptied = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        link::empty_redis(&trial.config).await;
        trial.injected += 1;
        // The unit is for sale: nobody knows of the late payment any more.
        let (begun, mut promised) = (Instant::now(), false);
        while !promised && begun.elapsed() < Duration::from_secs(8) {
            let answer = client.buy(&client.buyer(50), buyer.product, 0).await.answer;
            promised = matches!(answer, Answer::Promised { .. });
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        promised
    };
    let (answer, promised) = tokio::join!(buyer.told("evt_1"), emptied);
    if !promised {
        trial.problem("the rebuilt gate sold nothing in time");
    }
    if answer != Some((503, true)) {
        trial.problem(format!("the callback was answered {answer:?}"));
    }
    buyer.url = steady.url();
    is(&mut trial, &buyer, ("cancelled", 1), "after the rebuild").await;
    tells_again(&mut trial, &buyer).await;
    is(&mut trial, &buyer, ("cancelled", 1), "its unit was sold, and").await;
    eventually_within(SWEPT_WITHIN, "one order has the unit", || async {
        let books = Books::read(&trial.config, buyer.product).await;
        books.is_ok_and(|books| (books.sold, books.owed, books.live.len()) == (1, 0, 1) && books.live[0].1 == 50)
    })
    .await;
    trial.finish(vec![shaky, steady]).await;
}
