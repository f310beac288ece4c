//! More purchases than the gate can take.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use seckill::config::Backend;

use crate::client::{Answer, Client};
use crate::link::Link;
use crate::proxy::{Proxy, Wire};
use crate::server::Server;
use crate::trial::Trial;

const ROOM: i64 = 64;
const BEYOND: i64 = 100;
const AT_ONCE: Duration = Duration::from_millis(50);

/// Guards against: a queue that grows where nobody sees it, and answers that come when nobody waits any more (peers 4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_its_room_a_purchase_is_turned_away_at_once() {
    let mut trial = Trial::begin("a gate that does not answer, too many purchases", Backend::Distributed).await;
    let mut through_proxy = trial.config.clone();
    let proxy = Proxy::before(Link::Redis, &mut through_proxy).await;
    let mut server = Server::start(&through_proxy).await;
    server.terminate().await;
    let one_lane = ("SECKILL__SERVER__WORKERS", "1".to_owned());
    server.restart_with(&[one_lane, ("SECKILL__LIMITS__PURCHASES_WAITING", ROOM.to_string())]).await;
    let client = Client::new(&trial.config, vec![server.url()]);
    let product = client.new_product(1000).await;
    let buy = async |user: i64| client.buy(&client.buyer(user), product, 0).await.answer;
    assert!(matches!(buy(1).await, Answer::Promised { .. }));

    proxy.set(Wire::HalfOpen);
    trial.injected += 1;
    // The first is asked of the gate, the others wait behind it.
    let asked = buy(2);
    let waiting = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        join_all((3..3 + ROOM).map(&buy)).await
    };
    let beyond = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut slowest = Duration::ZERO;
        for user in 1000..1000 + BEYOND {
            let begun = Instant::now();
            assert_eq!(buy(user).await, Answer::Later);
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    };
    let begun = Instant::now();
    let waiting = async { (waiting.await, begun.elapsed()) };
    let (asked, (waiting, waited), slowest) = tokio::join!(asked, waiting, beyond);
    assert!(waiting.iter().chain([&asked]).all(|answer| *answer == Answer::Later), "{asked:?} {waiting:?}");
    assert!(waited > Duration::from_millis(300), "nothing waited: {waited:?}");
    assert!(slowest < AT_ONCE, "the slowest of {BEYOND} took {slowest:?}");

    // Those who were turned away have taken nothing; who was asked for at the gate may have got a unit.
    proxy.set(Wire::Good);
    let remaining = async || client.remaining(product).await;
    let begun = Instant::now();
    while remaining().await.is_none_or(|left| left < 998) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?} remain", remaining().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    trial.finish(vec![server]).await;
}
