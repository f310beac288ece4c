//! Keeps the snapshots up to date.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::redis::{self, Value};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio_util::sync::CancellationToken;

use super::super::keys::SENTINEL;
use super::super::replies::{OpenGate, nonsense};
use super::super::server::RedisAccess;
use super::super::shard::Shard;
use super::admitted::Users;
use super::cache::{SoldOutCache, Watched};
use super::snapshot::Snapshot;
use crate::model::ProductId;
use crate::stock::types::GateError;

const POLL_EVERY: Duration = Duration::from_millis(80);
/// After its buyers were copied a sale is left alone for this many times as long.
const COPY_SHARE: u32 = 10;
/// Buyers that Redis is asked for at a time; other clients wait meanwhile.
const SCAN_COUNT: usize = 1_000;

/// A copy of a full sale's buyers.
struct BuyersCopy {
    watched: Watched,
    begun: Instant,
    /// `None`: the gate has changed meanwhile.
    snapshot: Result<Option<Snapshot>, GateError>,
}

/// Keeps the snapshots up to date. Ends with `stop`.
pub(in crate::stock::redis) async fn run(server: &RedisAccess, cache: &SoldOutCache, stop: &CancellationToken) {
    // One at a time, so that Redis has others to serve as well.
    let mut copying = FuturesUnordered::<BoxFuture<'_, BuyersCopy>>::new();
    // Each shard by itself: one that does not answer keeps no other waiting.
    let mut polling = FuturesUnordered::<BoxFuture<'_, Polled>>::new();
    let mut asked: HashSet<String> = HashSet::new();
    let mut not_before: HashMap<ProductId, Instant> = HashMap::new();
    let mut tick = tokio::time::interval(POLL_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(copy) = copying.next() => {
                not_before.insert(copy.watched.product, Instant::now() + COPY_SHARE * copy.begun.elapsed());
                // A copy that failed is made again; what is missing until then is asked of Redis.
                if let Ok(Some(snapshot)) = copy.snapshot {
                    cache.keep(&copy.watched, snapshot);
                }
            }
            _ = tick.tick() => {
                for (shard, sales) in watched_by_shard(server, cache).await {
                    if asked.insert(shard.name.clone()) {
                        polling.push(poll(server, cache, shard, sales).boxed());
                    }
                }
            }
            Some(Polled { shard, full }) = polling.next() => {
                asked.remove(&shard);
                not_before.retain(|_, at| *at > Instant::now());
                let next = full.into_iter().find(|watched| !not_before.contains_key(&watched.product));
                if let Some(watched) = next && copying.is_empty() {
                    copying.push(copy(server, cache, watched).boxed());
                }
            }
            () = cache.new_sale.notified() => tick.reset_immediately(),
        }
    }
}

/// The watched sales, by the shard that has their gates. What no shard has is known of nobody.
async fn watched_by_shard(server: &RedisAccess, cache: &SoldOutCache) -> Vec<(Arc<Shard>, Vec<Watched>)> {
    let mut sales: Vec<Option<Watched>> = cache.watched().into_iter().map(Some).collect();
    if sales.is_empty() {
        return Vec::new();
    }
    let products: Vec<ProductId> = sales.iter().flatten().map(|watched| watched.product).collect();
    let groups = server.by_shard(&products).await.into_iter();
    groups
        .filter_map(|(shard, places, _)| {
            Some((shard.ok()?, places.into_iter().filter_map(|at| sales[at].take()).collect()))
        })
        .collect()
}

/// What a look at the sales of a shard has found: those that are full and whose buyers are not known.
struct Polled {
    shard: String,
    full: Vec<Watched>,
}

/// Asks a shard about its watched sales.
async fn poll(server: &RedisAccess, cache: &SoldOutCache, shard: Arc<Shard>, sales: Vec<Watched>) -> Polled {
    let products: Vec<ProductId> = sales.iter().map(|watched| watched.product).collect();
    let mut polled = Polled { shard: shard.name.clone(), full: Vec::new() };
    // When Redis is away, what was known is soon too old to deny anybody.
    let Ok((asked, gates)) = server.ask_gates(&shard, &shard.cells[0], &products).await else { return polled };
    for (watched, gate) in sales.into_iter().zip(gates) {
        let buyers = gate.as_ref().map_or(0, |gate| gate.buyers as usize);
        if cache.take_over(&watched, gate, asked) && cache.has_room_for(buyers) {
            polled.full.push(watched);
        }
    }
    polled
}

async fn copy(server: &RedisAccess, cache: &SoldOutCache, watched: Watched) -> BuyersCopy {
    let begun = Instant::now();
    let snapshot = copy_buyers(server, cache, watched.product).await;
    BuyersCopy { watched, begun, snapshot }
}

/// Exact if the gate's version was the same before and after, and it was full both times.
async fn copy_buyers(
    server: &RedisAccess,
    cache: &SoldOutCache,
    product: ProductId,
) -> Result<Option<Snapshot>, GateError> {
    let full = |gates: Vec<Option<OpenGate>>| {
        let gate = gates.into_iter().next().flatten()?;
        (gate.taken >= gate.settings.stock).then_some(gate)
    };
    let shard = server.shards.of(product).await?;
    let (_, before) = server.ask_gates(&shard, shard.cell(product), &[product]).await?;
    let Some(before) = full(before) else { return Ok(None) };
    let buyers = match cache.take_admitted(product, before.version, before.buyers) {
        Some(buyers) => buyers,
        None => scan_buyers(server, &shard, product).await?,
    };
    let (asked, after) = server.ask_gates(&shard, shard.cell(product), &[product]).await?;
    let same = full(after).filter(|after| after.version == before.version && after.buyers == buyers.len() as i64);
    Ok(same.map(|gate| Snapshot::new(gate, asked, Some(buyers))))
}

async fn scan_buyers(server: &RedisAccess, shard: &Shard, product: ProductId) -> Result<Users, GateError> {
    let cell = &shard.cells[0];
    let link = server.link(shard, cell).await?;
    let mut buyers = Users::default();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(server.keys.buyers(product)).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
        let reply = scan.query_async::<(u64, Vec<(String, Value)>)>(&mut link.conn()).await;
        let (next, found) = server.answered(shard, cell, &link, reply)?;
        for (user, _) in found.iter().filter(|(user, _)| user != SENTINEL) {
            buyers.insert(user.parse().map_err(nonsense)?);
        }
        if next == 0 {
            return Ok(buyers);
        }
        cursor = next;
    }
}
