//! A Redis that answers, but refuses: buyers are asked to come again, readiness says so, and it sells again by itself.

use std::time::{Duration, Instant};

use deadpool_redis::redis::cmd;
use seckill::config::{Backend, Config};

use crate::crowd::Plan;
use crate::daemon::Daemon;
use crate::link::{self, Link};
use crate::server::Server;
use crate::support::eventually_within;
use crate::trial::Trial;

/// Once nothing is refused any more.
const SELLS_WITHIN: Duration = Duration::from_secs(2);
/// The same where the server's identity has changed, so that the gate is rebuilt.
const REBUILT_WITHIN: Duration = Duration::from_secs(10);

async fn tell(config: &Config, commands: &[&str]) {
    let mut redis = link::redis(config).await.expect("Redis");
    for command in commands {
        let mut words = command.split(' ');
        let mut command = cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>()).query_async::<()>(&mut redis).await.unwrap();
    }
}

async fn refuses(fault: &str, refuse: &[&str], relent: &[&str], word: &str, sells_within: Duration) {
    let mut trial = Trial::begin(format!("Redis refuses: {fault}"), Backend::Distributed).await;
    let _redis = Daemon::start(Link::Redis, &mut trial.config).await;
    // All that a purchase needs, and nothing else.
    let rules = "+@hash +@sortedset +@string +@keyspace -@dangerous +@scripting +@transaction +@connection +info +time";
    let user = format!("ACL SETUSER shop on >shop-password ~seckill:* {rules}");
    tell(&trial.config, &[&user]).await;
    let mut as_shop = trial.config.clone();
    as_shop.redis.username = "shop".to_owned();
    as_shop.redis.password = "shop-password".into();
    let server = Server::start(&as_shop).await;
    let crowd = trial.open_sale(&[&server], Plan::rush(900, 1200)).await;
    for round in 1..=2 {
        crowd.sold(round * 25).await;
        tell(&trial.config, refuse).await;
        trial.injected += 1;
        let ready = || async { reqwest::get(format!("{}/readyz", server.url())).await.unwrap().status() };
        eventually_within(5, "readiness says so", || async { ready().await == 503 }).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        tell(&trial.config, relent).await;
        let after = crowd.sells_after(Instant::now(), sells_within).await;
        trial.sold_again(after, sells_within);
        eventually_within(5, "it is ready again", || async { ready().await == 200 }).await;
    }
    trial.refused_meanwhile(&crowd);
    let lines = server.log().lines().filter(|line| line.contains(&format!("{word}: "))).count();
    if !(1..=12).contains(&lines) {
        trial.problem(format!("{lines} lines of the log name {word}"));
    }
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

macro_rules! refusals {
    ($($name:ident, $word:literal, $refuse:expr, $relent:expr, $within:expr;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "minutes; make test-faults"]
        async fn $name() {
            refuses(stringify!($name), &$refuse, &$relent, $word, $within).await;
        })+
    };
}

refusals! {
    its_memory_is_full, "OOM", ["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"], SELLS_WITHIN;
    too_few_replicas, "NOREPLICAS", ["CONFIG SET min-replicas-to-write 1"], ["CONFIG SET min-replicas-to-write 0"],
        SELLS_WITHIN;
    it_became_a_replica, "READONLY", ["REPLICAOF 127.0.0.1 1"], ["REPLICAOF NO ONE"], REBUILT_WITHIN;
    its_user_may_not_evalsha, "NOPERM", ["ACL SETUSER shop -evalsha"], ["ACL SETUSER shop +evalsha"], SELLS_WITHIN;
    its_user_may_not_zadd, "ERR", ["ACL SETUSER shop -zadd"], ["ACL SETUSER shop +zadd"], SELLS_WITHIN;
    its_user_may_not_see_the_keys, "NOPERM", ["ACL SETUSER shop resetkeys"], ["ACL SETUSER shop ~seckill:*"], SELLS_WITHIN;
}
