//! A Redis Cluster, and a Redis that Sentinels watch: masters that are killed, frozen, replaced while they live, and slots that move.

use std::time::{Duration, Instant};

use seckill::config::{Backend, RedisMode};

use crate::client::Client;
use crate::crowd::{Crowd, Plan, Sale};
use crate::redis_nodes::{RedisCluster, WatchedRedis};
use crate::server::Server;
use crate::trial::Trial;

/// A master that is gone is noticed, its replica promoted, and its gates are rebuilt within this.
const REPLACED_WITHIN: Duration = Duration::from_secs(15);
/// Longest time without a sale on shards where nothing happens.
const OTHERS_WITHIN: Duration = Duration::from_secs(1);

const RUSH: Plan = Plan { lasting: Duration::from_secs(25), ..Plan::rush(1_200, 1_500) };

/// A sale on each of two shards; the first one's master is harmed.
async fn harm_one_of_two(fault: &str, harm: impl AsyncFn(&mut RedisCluster, usize)) {
    let mut trial = Trial::begin(fault, Backend::Distributed).await;
    let mut cluster = RedisCluster::start(&mut trial.config).await;
    let servers = [Server::start(&trial.config).await, Server::start(&trial.config).await];
    let client = || Client::new(&trial.config, servers.iter().map(Server::url).collect());
    let product = client().new_product(RUSH.stock).await;
    let harmed = cluster.master_of(product).await;
    let elsewhere = loop {
        let product = client().new_product(RUSH.stock).await;
        if cluster.master_of(product).await != harmed {
            break product;
        }
    };
    let [crowd, other] = [product, elsewhere].map(|product| Sale::new(client(), product, RUSH));
    let [crowd, other] = [crowd, other].map(|sale| Crowd::gather(&sale, RUSH, &mut trial.dice));
    crowd.sold(25).await;
    let begun = Instant::now();
    harm(&mut cluster, harmed).await;
    trial.injected += 1;
    let after = crowd.sells_after(begun + Duration::from_secs(2), REPLACED_WITHIN).await;
    trial.sold_again(after.map(|after| after + Duration::from_secs(2)), REPLACED_WITHIN);
    longest_pause(&mut trial, &other, begun).await;
    trial.refused_meanwhile(&crowd);
    trial.judge(crowd).await;
    trial.judge(other).await;
    trial.finish(servers.into()).await;
}

/// The sale on the other shard must have gone on all the time.
async fn longest_pause(trial: &mut Trial, crowd: &Crowd, since: Instant) {
    let mut sold_at = crowd.sale.record().sold_at.clone();
    sold_at.retain(|at| *at >= since);
    sold_at.sort();
    let pauses = sold_at.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = pauses.max().unwrap_or(Duration::MAX);
    if longest > OTHERS_WITHIN {
        trial.problem(format!("on another shard nothing was sold for {longest:?}, of {} sold since", sold_at.len()));
    }
}

/// Guards against: a client library that follows a redirect to a replica which lacks the last purchases (peers 16).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_cluster_that_is_killed_costs_its_own_products_seconds() {
    harm_one_of_two("Redis Cluster: a master killed", async |cluster, harmed| {
        cluster.nodes[harmed].kill().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn a_master_of_a_cluster_that_hangs_is_replaced() {
    harm_one_of_two("Redis Cluster: a master frozen 8 s", async |cluster, harmed| {
        cluster.nodes[harmed].freeze(Duration::from_secs(8)).await;
    })
    .await;
}

/// Guards against: a step that is half done on one node and half on another, and a gate that is used on both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_under_load_loses_nothing() {
    let mut trial = Trial::begin("Redis Cluster: a slot moved, twice", Backend::Distributed).await;
    let cluster = RedisCluster::start(&mut trial.config).await;
    let server = Server::start(&trial.config).await;
    let crowd = trial.open_sale(&[&server], RUSH).await;
    for percent in [20, 60] {
        crowd.sold(percent).await;
        cluster.move_slot_of(crowd.sale.product).await;
        trial.injected += 1;
        let after = crowd.sells_after(Instant::now(), REPLACED_WITHIN).await;
        trial.sold_again(after, REPLACED_WITHIN);
    }
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

/// A sale on a master that Sentinels watch, which is harmed.
async fn harm_the_master(fault: &str, harm: impl AsyncFn(&mut WatchedRedis, usize)) {
    let mut trial = Trial::begin(fault, Backend::Distributed).await;
    let mut redis = WatchedRedis::start(&mut trial.config, 3, 2).await;
    let server = Server::start(&trial.config).await;
    let crowd = trial.open_sale(&[&server], RUSH).await;
    crowd.sold(30).await;
    let begun = Instant::now();
    let master = redis.master().await;
    harm(&mut redis, master).await;
    trial.injected += 1;
    let after = crowd.sells_after(begun + Duration::from_secs(1), REPLACED_WITHIN).await;
    trial.sold_again(after, REPLACED_WITHIN);
    trial.refused_meanwhile(&crowd);
    assert!(redis.nodes[1 - master].is_master().await, "the replica was promoted");
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_sentinels_watch_is_replaced_when_it_is_killed() {
    harm_the_master("Sentinels: the master killed", async |redis, master| redis.nodes[master].kill().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn a_master_that_sentinels_watch_is_replaced_when_it_hangs() {
    harm_the_master("Sentinels, one of them dead: the master frozen 8 s", async |redis, master| {
        redis.sentinels[0].kill().await;
        redis.nodes[master].freeze(Duration::from_secs(8)).await;
    })
    .await;
}

/// Its replica was promoted, and it knows nothing of it: it takes writes from an instance that hears one Sentinel of three.
///
/// Guards against: promises of the old master that the new one's gate turns down, and two gates that take the product from each
/// other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_replaced_and_goes_on_promises_nothing_that_is_not_kept() {
    let mut trial = Trial::begin("a Redis master deposed that takes writes", Backend::Distributed).await;
    let mut redis = WatchedRedis::start(&mut trial.config, 1, 2).await;
    let mut behind = trial.config.clone();
    // Nobody listens at port 1.
    behind.redis.nodes.extend(["127.0.0.1:1".to_owned(), "127.0.0.1:1".to_owned()]);
    let mut ahead = trial.config.clone();
    ahead.redis.mode = RedisMode::Single;
    ahead.redis.nodes.clear();
    ahead.redis.addr = redis.nodes[1].address();
    let other = Server::start_unready(&ahead).await;
    let cut_off = Server::start(&behind).await;
    let product = Client::new(&behind, vec![cut_off.url()]).new_product(RUSH.stock).await;
    let client = Client::new(&ahead, vec![other.url(), cut_off.url()]);
    let crowd = Crowd::gather(&Sale::new(client, product, RUSH), RUSH, &mut trial.dice);
    crowd.sold(25).await;
    // It would have the replica follow again.
    redis.sentinels[0].kill().await;
    redis.nodes[1].ask::<()>("REPLICAOF NO ONE").await;
    trial.injected += 1;
    // Without a pause if the old one still sold; but that one is told before the new one opens.
    let begun = Instant::now();
    let after = crowd.sells_after(begun + Duration::from_secs(5), REPLACED_WITHIN).await;
    trial.sold_again(after, REPLACED_WITHIN);
    trial.judge(crowd).await;
    trial.finish(vec![other, cut_off]).await;
}
