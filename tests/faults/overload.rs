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
const AT_ONCE: Duration = Duration::from_millis(50);
/// A gate that does not answer is given up after half a second; until then everybody waits.
const ALL_WAIT_UNTIL: Duration = Duration::from_millis(400);

/// Guards against: a queue that grows where nobody sees it, and answers that come when nobody waits any more (peers 4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "compares times, on a machine of its own: make test-faults"]
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
    let behind = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        join_all((3..3 + ROOM).map(&buy)).await
    };
    let begun = Instant::now();
    let beyond = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut took = Vec::new();
        for user in 1000.. {
            let clicked = begun.elapsed();
            if clicked > ALL_WAIT_UNTIL {
                break;
            }
            assert_eq!(buy(user).await, Answer::Later);
            took.push(begun.elapsed() - clicked);
        }
        took.sort();
        took
    };
    let behind = async { (behind.await, begun.elapsed()) };
    let (asked, (behind, waited), took) = tokio::join!(asked, behind, beyond);
    assert!(behind.iter().chain([&asked]).all(|answer| *answer == Answer::Later), "{asked:?} {behind:?}");
    assert!(waited > ALL_WAIT_UNTIL, "nothing waited: {waited:?}");
    assert!(took.len() > 3 && took[took.len() / 2] < AT_ONCE, "those beyond took {took:?}");

    // Those who were turned away have taken nothing; who was asked for at the gate may have got a unit.
    proxy.set(Wire::Good);
    let remaining = async || client.remaining(product).await;
    let begun = Instant::now();
    while remaining().await.is_none_or(|remaining| remaining < 998) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?} remain", remaining().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    trial.finish(vec![server]).await;
}
