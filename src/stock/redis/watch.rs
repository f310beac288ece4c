//! Whether the server is still the one that the links were made to, and does what a purchase needs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::connection::ConnectionCell;
use super::gate::RedisGate;
use super::keys::Keys;
use super::replies::status;
use super::shard::Shard;
use super::sold_out_cache::poller;
use crate::model::ProductId;
use crate::stock::types::GateError;

/// How often an idle link's server is asked who it is.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// A shard is probed once in this time at most.
const PROBED_FOR: Duration = Duration::from_secs(1);
/// A server that has not answered by then cannot be used. Less than those wait who ask, for the others are known by then.
const PROBE_PATIENCE: Duration = Duration::from_millis(700);

impl RedisGate {
    /// The identities of the servers that keep gates, asked anew. An error: none of them answers.
    pub(in crate::stock) async fn server_ids(&self) -> Result<ServerIds, GateError> {
        let shards = self.server.shards.all().await?;
        let asked = join_all(shards.iter().map(|shard| self.ask_server_id(shard))).await;
        let (mut ids, mut failure) = (Vec::new(), None);
        for (shard, id) in shards.into_iter().zip(asked) {
            match id {
                Ok(id) => ids.push((shard, id)),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if ids.is_empty() => Err(error),
            _ => Ok(ServerIds(ids)),
        }
    }

    /// The server's identity; its clock is known afterwards.
    async fn ask_server_id(&self, shard: &Shard) -> Result<String, GateError> {
        let cell = &shard.cells[0];
        let link = self.server.link(shard, cell).await?;
        // The link may be older than a failover.
        let server_id = cell.read_server_id(&link).await;
        if server_id.as_ref() != Ok(&link.server_id) {
            cell.drop_link(&link);
        } else {
            let _ = self.server.ask_gates(shard, cell, &[]).await;
        }
        server_id
    }

    /// The server that keeps a product's gate, by what was asked.
    pub(in crate::stock) async fn server_of(&self, ids: &ServerIds, product: ProductId) -> Option<String> {
        let shard = self.server.shards.of(product).await.ok()?;
        ids.0.iter().find(|(its, _)| Arc::ptr_eq(its, &shard)).map(|(_, id)| id.clone())
    }

    /// Whether gates can be used: those of one shard at least. Who asks while somebody finds out waits for the same answer.
    pub(in crate::stock) async fn ping(&self) -> Result<(), GateError> {
        let mut probed = self.probed.lock().await;
        if let Some((at, result)) = &*probed
            && at.elapsed() < PROBED_FOR
        {
            return result.clone();
        }
        let result = self.probe_shards().await;
        *probed = Some((Instant::now(), result.clone()));
        result
    }

    /// Servers that keep gates and could not be used when they were probed last.
    pub(in crate::stock) fn servers_down(&self) -> usize {
        self.servers_down.load(Ordering::Relaxed)
    }

    async fn probe_shards(&self) -> Result<(), GateError> {
        let shards = self.server.shards.all().await?;
        let probed = join_all(shards.iter().map(|shard| self.probe_shard(shard))).await;
        // A master that has failed for good is no shard any more.
        let down =
            probed.iter().filter(|probed| probed.is_err()).count() + usize::from(!self.server.shards.are_whole());
        self.servers_down.store(down, Ordering::Relaxed);
        // A shard that is away costs its own products alone.
        if probed.iter().any(Result::is_ok) { Ok(()) } else { probed.into_iter().collect() }
    }

    /// Does what a purchase needs, without touching a sale.
    async fn probe_shard(&self, shard: &Arc<Shard>) -> Result<(), GateError> {
        let server = &self.server;
        // A shard that has hardly a slot may have none of these.
        let Some(tag) = server.shards.tag_of(shard, Keys::probe_tags()) else { return Ok(()) };
        let (keys, rate_prefix) = server.keys.probe(&tag);
        let probing = server.invoke_on::<String>(shard, &shard.prober, &server.scripts.probe, &keys, |_, call| {
            call.arg(rate_prefix);
        });
        let silent = || GateError::Unreachable("no answer in time".to_owned());
        let reply = tokio::time::timeout(PROBE_PATIENCE, probing).await.unwrap_or_else(|_| Err(silent()));
        let probed = reply.and_then(|reply| status(&reply));
        if probed.is_ok() {
            shard.troubles.over();
        }
        probed
    }

    pub(in crate::stock) async fn watch(&self, stop: CancellationToken) {
        tokio::join!(self.watch_links(&stop), poller::run(&self.server, &self.sold_out, &stop));
    }

    async fn watch_links(&self, stop: &CancellationToken) {
        let mut tick = tokio::time::interval(WATCH_INTERVAL);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.server.shards.look_again();
            let shards = self.server.shards.all().await.unwrap_or_default();
            let _ = self.ping().await;
            join_all(shards.iter().map(|shard| self.watch_shard(shard))).await;
        }
    }

    /// Drops links that lead to another server than they did, or to one that is no longer the master.
    async fn watch_shard(&self, shard: &Shard) {
        let _ = self.server.ask_gates(shard, &shard.reader, &[]).await;
        // As long as nobody says where the master is, it is where it was.
        let master = shard.master.find().await.ok().map(|server| server.address.clone());
        join_all(shard.all_cells().map(|cell| watch_cell(shard, cell, master.as_ref()))).await;
    }
}

async fn watch_cell(shard: &Shard, cell: &ConnectionCell, master: Option<&Address>) {
    let Some(link) = cell.current() else { return };
    if master.is_some_and(|master| *master != link.address) {
        return cell.drop_link(&link);
    }
    match cell.read_server_id(&link).await {
        Ok(server_id) if server_id == link.server_id => *shard.known_server.lock() = Some(server_id),
        Ok(server_id) => {
            // Each of the links finds out by itself.
            let before = shard.known_server.lock().replace(server_id.clone());
            if before.is_some_and(|known| known != server_id) {
                tracing::warn!("Redis is another server than before: connecting anew");
            }
            cell.drop_link(&link);
        }
        Err(error) => {
            shard.troubles.note(&error);
            cell.drop_link(&link);
        }
    }
}

/// Which server keeps the gates of which products, as it was asked at one moment.
pub struct ServerIds(Vec<(Arc<Shard>, String)>);
