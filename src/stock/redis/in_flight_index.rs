//! Of which products something is in flight: one index for all. To find what a user holds that is not written yet, the gates
//! of these are asked, however many others there are.
//!
//! An instance notes a product before it promises a unit of it, at most once in `NOTED_FOR`, beside the publish; if that does not
//! succeed soon, it promises all the same. No step at the gate knows of it. The sweep of every instance notes what it sees in flight, and takes away what nobody has noted for
//! [`KEPT`]. The index decides nothing: one that is missing something costs a line in a list for a moment.
//!
//! It is believed only if a sweep has said so on this very server: an index that was emptied, or that a failover has left
//! behind, is not, until a sweep has looked at every gate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::redis;

use super::connection::ConnectionCell;
use super::gate::RedisGate;
use super::replies::status;
use super::shard::Shard;
use crate::model::ProductId;
use crate::stock::types::GateError;

/// An entry counts this long. More than `NOTED_FOR` and the longest time from a click to its promise together.
const KEPT: Duration = Duration::from_secs(10);

impl RedisGate {
    /// Of this product something is in flight.
    pub(in crate::stock) async fn note_in_flight(
        &self,
        products: impl Iterator<Item = ProductId>,
    ) -> Result<(), GateError> {
        let new: Vec<ProductId> = products.filter(|product| !self.noted.has(*product)).collect();
        let Some(first) = new.first() else { return Ok(()) };
        let begun = Instant::now();
        let shard = self.index_shard().await?;
        self.write_index(&shard, shard.cell(*first), &new, false).await?;
        self.noted.note(&new, begun);
        Ok(())
    }

    /// Every gate was looked at, and these had something in flight.
    pub(in crate::stock) async fn saw_in_flight(&self, products: &[ProductId]) -> Result<(), GateError> {
        let shard = self.index_shard().await?;
        self.write_index(&shard, &shard.reader, products, true).await
    }

    async fn index_shard(&self) -> Result<Arc<Shard>, GateError> {
        self.server.shards.of_key(&self.server.keys.in_flight_index()).await
    }

    async fn write_index(
        &self,
        shard: &Shard,
        cell: &ConnectionCell,
        products: &[ProductId],
        all: bool,
    ) -> Result<(), GateError> {
        let reply: String = self
            .server
            .invoke_on(
                shard,
                cell,
                &self.server.scripts.note_in_flight,
                &[self.server.keys.in_flight_index()],
                |link, call| {
                    call.arg(KEPT.as_millis() as u64).arg(if all { &link.server_id } else { "" });
                    for product in products {
                        call.arg(product.get());
                    }
                },
            )
            .await?;
        status(&reply)
    }

    /// The products of which something may be in flight; `None`: nobody knows.
    pub(in crate::stock) async fn products_in_flight(&self) -> Result<Option<Vec<ProductId>>, GateError> {
        let (members, server_id) = match self.read_index().await {
            Ok(found) => found,
            // Somebody has put something else in its place, which a sweep takes away.
            Err(GateError::Protocol(_)) => return Ok(None),
            // The gates themselves may be on other shards.
            Err(_) if self.server.shards.are_several() => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_whole = members.iter().any(|member| member.strip_prefix('@') == Some(server_id.as_str()));
        Ok(is_whole.then(|| members.iter().filter_map(|member| member.parse().ok()).collect()))
    }

    /// What the index holds, and the server that it is on.
    async fn read_index(&self) -> Result<(Vec<String>, String), GateError> {
        let shard = self.index_shard().await?;
        let cell = &shard.reader;
        let link = self.server.link(&shard, cell).await?;
        let mut ask = redis::cmd("ZRANGEBYSCORE");
        ask.arg(self.server.keys.in_flight_index()).arg("-inf").arg("+inf");
        let reply = ask.query_async::<Vec<String>>(&mut link.conn()).await;
        Ok((self.server.answered(&shard, cell, &link, reply)?, link.server_id.clone()))
    }
}
