//! How a gate in Redis is closed, filled and opened. Only over a closed gate, and only on the server it is meant for.

use std::time::Duration;

use deadpool_redis::redis::{self, Value};
use uuid::Uuid;

use super::gate::RedisGate;
use super::keys::SENTINEL;
use super::mark;
use super::replies::{GateReply, parse_readmitted};
use super::scripts::{CHUNK, add_settings};
use crate::model::{Life, ProductId, Purchase, SaleSettings};
use crate::stock::types::{Answer, GateError, Inspection};

/// A staged set of buyers that nobody installs goes away by itself.
const STAGING_TTL: Duration = Duration::from_secs(600);

/// So does a closed gate that nobody opens. A rebuild takes seconds, unless no consumer runs.
const CLOSED_TTL: Duration = Duration::from_secs(24 * 3600);

/// Buyers that are loaded beside a closed gate.
pub struct Staging {
    product: ProductId,
    server_id: String,
    epoch: i64,
    key: String,
    /// Units of these buyers beyond one each.
    extra: i64,
}

impl RedisGate {
    /// Looks at a gate over a connection made for it, so that it is the server of now that answers.
    pub(in crate::stock) async fn inspect(&self, product: ProductId) -> Result<Inspection, GateError> {
        let shard = self.server.shards.of(product).await?;
        let cell = shard.cell(product);
        if let Some(link) = cell.current() {
            cell.drop_link(&link);
        }
        let link = self.server.link(&shard, cell).await?;
        let mut ask = redis::pipe();
        self.server.ask_gate(&mut ask, product);
        if !self.server.shards.hear_most() {
            let problem =
                "most of those do not answer who know the master: it may have been replaced, so no gate is begun on it";
            return Err(GateError::Unreachable(format!("{}: {problem}", link.address)));
        }
        let mut reply = self.server.ask_each(&shard, cell, &link, &mut ask).await?.into_iter();
        let server_id = link.server_id.clone();
        let found = GateReply::read(&mut reply)?.found(&server_id);
        Ok(Inspection { server_id, found })
    }

    /// Closes whatever gate of an older epoch there is. After it, no purchase of an older epoch can be admitted.
    pub(in crate::stock) async fn close(
        &self,
        product: ProductId,
        server_id: &str,
        epoch: i64,
    ) -> Result<(), GateError> {
        self.close_with(product, &self.server.keys.of_sale(product), server_id, epoch).await
    }

    /// The same of a product that was just made: no address has bought any of it, whatever is known of one with its id.
    pub(in crate::stock) async fn close_new(
        &self,
        product: ProductId,
        server_id: &str,
        epoch: i64,
    ) -> Result<(), GateError> {
        self.close_with(product, &self.server.keys.of_sale_with_addresses(product), server_id, epoch).await
    }

    async fn close_with(
        &self,
        product: ProductId,
        keys: &[String],
        server_id: &str,
        epoch: i64,
    ) -> Result<(), GateError> {
        let reply = self
            .server
            .invoke_at(product, server_id, &self.server.scripts.close, keys, |call| {
                call.arg(server_id).arg(epoch).arg(CLOSED_TTL.as_millis() as u64);
            })
            .await;
        self.changed(product, reply)
    }

    /// Takes away the gate of a sale that ended longer than `age` ago and has nothing in flight; the server that it was on.
    pub(in crate::stock) async fn retire(
        &self,
        product: ProductId,
        epoch: i64,
        age: Duration,
    ) -> Result<Option<String>, GateError> {
        let keys = self.server.keys.of_sale_with_addresses(product);
        let mut server_id = String::new();
        let reply = self
            .server
            .invoke::<String>(product, &self.server.scripts.retire, &keys, |link, call| {
                server_id.clone_from(&link.server_id);
                call.arg(&link.server_id).arg(epoch).arg(age.as_millis() as u64);
            })
            .await;
        match reply.as_deref() {
            Ok("stays") => Ok(None),
            _ => self.changed(product, reply).map(|()| Some(server_id)),
        }
    }

    /// Gives units to purchases that were promised and set aside, under their own order ids.
    pub(in crate::stock) async fn readmit(
        &self,
        product: ProductId,
        purchases: &[Purchase],
    ) -> Result<(i64, Vec<Answer>), GateError> {
        let keys = self.server.keys.of_sale(product);
        let reply = self
            .server
            .invoke::<Vec<Value>>(product, &self.server.scripts.readmit, &keys, |link, call| {
                call.arg(&link.server_id);
                for purchase in purchases {
                    call.arg(purchase.user_id.get()).arg(marked(&(*purchase).into()));
                }
            })
            .await?;
        parse_readmitted(reply)
    }

    /// Begins to load the buyers of the gate of `epoch` on the server `server_id`.
    pub(in crate::stock) async fn stage(
        &self,
        product: ProductId,
        server_id: &str,
        epoch: i64,
    ) -> Result<Staging, GateError> {
        let key = self.server.keys.staging(product, &Uuid::new_v4().simple());
        let staging = Staging { product, server_id: server_id.to_owned(), epoch, key, extra: 0 };
        self.load(&staging, &[(SENTINEL.to_owned(), epoch.to_string())]).await?;
        Ok(staging)
    }

    /// Loads buyers.
    pub(in crate::stock) async fn add_staged(&self, staging: &mut Staging, held: &[Life]) -> Result<(), GateError> {
        for chunk in held.chunks(CHUNK) {
            let fields: Vec<_> = chunk.iter().map(|held| (held.purchase.user_id.to_string(), marked(held))).collect();
            self.load(staging, &fields).await?;
        }
        staging.extra += held.iter().map(|held| held.purchase.quantity.extra()).sum::<i64>();
        Ok(())
    }

    async fn load(&self, staging: &Staging, fields: &[(String, String)]) -> Result<(), GateError> {
        let shard = self.server.shards.of(staging.product).await?;
        let cell = shard.cell(staging.product);
        let link = self.server.link(&shard, cell).await?;
        if link.server_id != staging.server_id {
            return Err(GateError::Lost);
        }
        let mut load = redis::pipe();
        load.atomic().hset_multiple(&staging.key, fields).ignore();
        load.pexpire(&staging.key, STAGING_TTL.as_millis() as i64).ignore();
        let loaded = load.query_async::<()>(&mut link.conn()).await;
        self.server.answered(&shard, cell, &link, loaded)
    }

    /// Opens the closed gate with the loaded buyers.
    pub(in crate::stock) async fn install(&self, staging: Staging, settings: &SaleSettings) -> Result<(), GateError> {
        let Staging { product, server_id, epoch, key, extra } = staging;
        let keys =
            [self.server.keys.gate(product), self.server.keys.buyers(product), self.server.keys.flight(product), key];
        let reply = self
            .server
            .invoke_at(product, &server_id, &self.server.scripts.install, &keys, |call| {
                call.arg(&server_id).arg(epoch);
                add_settings(call, settings);
                call.arg(extra);
            })
            .await;
        self.changed(product, reply)
    }
}

fn marked(life: &Life) -> String {
    let mut mark = String::new();
    mark::push_life(&mut mark, life);
    mark
}
