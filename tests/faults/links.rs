//! Faults of the wires between the program and its servers, which stay well themselves.

use std::time::{Duration, Instant};

use seckill::config::Backend;

use crate::crowd::Plan;
use crate::link::Link;
use crate::proxy::{Proxy, Wire};
use crate::server::Server;
use crate::trial::Trial;

/// Longer than any one answer is waited for.
const LASTS: Duration = Duration::from_secs(4);
/// Broken connections are noticed and replaced within this after the wire is good again.
const SELLS_WITHIN: Duration = Duration::from_secs(10);

/// Spoils a wire three times in the middle of a sale, each time in a way of its own draw.
async fn spoil(link: Link, kind: &str, draw: impl Fn(&mut Trial) -> Wire) {
    let mut trial = Trial::begin(format!("{link:?}: {kind}"), Backend::Distributed).await;
    let mut through_proxy = trial.config.clone();
    let proxy = Proxy::before(link, &mut through_proxy).await;
    let server = Server::start(&through_proxy).await;
    let plan = Plan { lasting: Duration::from_secs(25), ..Plan::rush(900, 1200) };
    let crowd = trial.open_sale(&[&server], plan).await;
    for round in 1..=3 {
        crowd.sold(trial.dice.among(round * 20 - 15..round * 20)).await;
        proxy.set(draw(&mut trial));
        tokio::time::sleep(LASTS).await;
        proxy.set(Wire::Good);
        let good = Instant::now();
        trial.injected += 1;
        let after = crowd.sells_after(good, SELLS_WITHIN).await;
        trial.sold_again(after, SELLS_WITHIN);
    }
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

/// Guards against: a confirm that never comes, taken for an alarm of the broker, so that an instance sells nothing for minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirms_that_are_lost_cost_seconds() {
    let mut trial = Trial::begin("RabbitMQ: confirms lost", Backend::Distributed).await;
    let proxy = Proxy::before(Link::RabbitMq, &mut trial.config).await;
    let server = Server::start(&trial.config).await;
    let plan = Plan { lasting: Duration::from_secs(8), ..Plan::rush(900, 1200) };
    let crowd = trial.open_sale(&[&server], plan).await;
    crowd.sold(30).await;
    proxy.set(Wire::WithoutConfirms);
    trial.injected += 1;
    // By then the instance has noticed that it is overdue.
    let begun = Instant::now() + Duration::from_secs(3);
    tokio::time::sleep_until(begun.into()).await;
    proxy.set(Wire::Good);
    let after = crowd.sells_after(begun, Duration::from_secs(12)).await;
    trial.sold_again(after, Duration::from_secs(12));
    assert!(server.log().contains("a confirm did not come, though the broker takes messages"), "{}", server.log());
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

macro_rules! on_each_link {
    ($($(#[doc = $doc:literal])+ $name:ident, $kind:literal, $draw:expr;)+) => {
        mod mariadb {
            use super::*;
            $(on_each_link!(@test $(#[doc = $doc])+ $name, Link::MariaDb, $kind, $draw);)+
        }

        mod redis {
            use super::*;
            $(on_each_link!(@test $(#[doc = $doc])+ $name, Link::Redis, $kind, $draw);)+
        }

        mod rabbitmq {
            use super::*;
            $(on_each_link!(@test $(#[doc = $doc])+ $name, Link::RabbitMq, $kind, $draw);)+
        }
    };
    (@test $(#[doc = $doc:literal])+ $name:ident, $link:expr, $kind:literal, $draw:expr) => {
        $(#[doc = $doc])+
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "minutes; make test-faults"]
        async fn $name() {
            spoil($link, $kind, $draw).await;
        }
    };
}

on_each_link! {
    /// Guards against: a step that failed half-way and leaves its unit nowhere (peers 1, 3, 6), a consumer that ends
    /// with its connection (peers 15).
    survives_a_cut, "connections reset", |_| Wire::Cut;

    /// Guards against: waiting for ever for a reply; releasing what arrives later after all (peers 2).
    survives_a_half_open_wire, "half-open", |_| Wire::HalfOpen;

    /// Guards against: a confirm, a commit or a reservation that happened while its answer did not come (peers 2, 11).
    survives_lost_replies, "replies held back", |_| Wire::Mute;

    /// Guards against: timeouts that make a slow server a dead one (peers 2).
    survives_a_slow_wire, "100 to 300 ms late", |trial| Wire::Slow(trial.dice.millis(100..300));

    /// Guards against: a step that was sent in part, or whose answer was (peers 2, 3, 6).
    survives_resets_in_mid_message, "reset after some bytes", |trial| Wire::ResetAfter(trial.dice.among(1..8192));
}
