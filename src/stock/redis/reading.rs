//! What the gate in Redis tells of itself. Nothing here changes it.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis;

use super::gate::RedisGate;
use super::keys::SENTINEL;
use super::mark::{self, InFlightEntry};
use super::replies::{OpenGate, nonsense, parse_held, parse_revision, parse_stale, status};
use super::shard::Shard;
use crate::model::{OrderId, ProductId, Purchase, Revision, UserId};
use crate::stock::types::{GateError, GateView, Holding, Stale};

impl RedisGate {
    pub(in crate::stock) async fn view(&self, products: &[ProductId]) -> Vec<Result<Option<GateView>, GateError>> {
        let look = async |shard: Arc<Shard>, products: Vec<ProductId>| {
            let (asked, gates) = self.server.ask_gates(&shard, &shard.reader, &products).await?;
            let view = |OpenGate { settings, version, taken, in_flight, .. }: OpenGate| {
                let remaining = (settings.stock - taken).max(0);
                GateView {
                    remaining,
                    state: settings.state(remaining, asked.clock),
                    epoch: version.epoch,
                    revision: settings.revision,
                    stock: settings.stock,
                    taken,
                    in_flight,
                    terms: settings.terms,
                }
            };
            Ok(gates.into_iter().map(|gate| gate.map(view)).collect())
        };
        self.server.ask_each_shard(products, look).await
    }

    pub(in crate::stock) async fn held_by(
        &self,
        users: &[UserId],
        products: &[ProductId],
    ) -> Vec<Result<Option<Vec<Holding>>, GateError>> {
        let look = async |shard: Arc<Shard>, products: Vec<ProductId>| self.held_at(&shard, users, &products).await;
        self.server.ask_each_shard(products, look).await
    }

    /// The same of products of one shard.
    async fn held_at(
        &self,
        shard: &Shard,
        users: &[UserId],
        products: &[ProductId],
    ) -> Result<Vec<Option<Vec<Holding>>>, GateError> {
        let cell = &shard.reader;
        let link = self.server.link(shard, cell).await?;
        let mut ask = redis::pipe();
        for product in products {
            ask.cmd("HMGET").arg(self.server.keys.gate(*product)).arg(&["epoch", "home", "open"]);
            ask.cmd("HMGET").arg(self.server.keys.buyers(*product)).arg(SENTINEL);
            for user in users {
                ask.arg(user.get());
            }
        }
        let mut reply = self.server.ask_each(shard, cell, &link, &mut ask).await?.into_iter();
        let mut next = || reply.next().ok_or_else(|| nonsense("a short reply"));
        let held = |product: &ProductId| {
            let (gate, buyers) = (next()?, next()?);
            self.server.readable(*product, parse_held(gate, buyers, &link.server_id))
        };
        products.iter().map(held).collect()
    }

    pub(in crate::stock) async fn find_in_flight(
        &self,
        product: ProductId,
        order: OrderId,
    ) -> Result<Option<Purchase>, GateError> {
        let shard = self.server.shards.of(product).await?;
        let cell = &shard.reader;
        let link = self.server.link(&shard, cell).await?;
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("ZSCAN");
            scan.arg(self.server.keys.flight(product))
                .arg(cursor)
                .arg("MATCH")
                .arg(format!("{order}*"))
                .arg("COUNT")
                .arg(1000);
            let reply = scan.query_async::<(u64, Vec<String>)>(&mut link.conn()).await;
            let (next, found) = self.server.answered(&shard, cell, &link, reply)?;
            // Each with its score behind it.
            for member in found.iter().step_by(2) {
                match mark::parse_in_flight(member).ok_or_else(|| nonsense(member))? {
                    InFlightEntry::Purchase(purchase) => return Ok(Some(purchase)),
                    // Its order is written.
                    InFlightEntry::Late(_) => {}
                }
            }
            if next == 0 {
                return Ok(None);
            }
            cursor = next;
        }
    }

    pub(in crate::stock) async fn revision_in_flight(
        &self,
        product: ProductId,
        purchase: Purchase,
    ) -> Result<Option<Revision>, GateError> {
        let keys = [self.server.keys.gate(product), self.server.keys.flight(product)];
        let mut member = String::new();
        mark::push_in_flight(&mut member, &purchase);
        let shard = self.server.shards.of(product).await?;
        let reply: String = self
            .server
            .invoke_on(&shard, &shard.reader, &self.server.scripts.revision_in_flight, &keys, |link, call| {
                call.arg(&link.server_id).arg(&member);
            })
            .await
            .map_err(|error| self.server.unreadable(product, error))?;
        match reply.as_str() {
            "written" => Ok(None),
            word => match word.parse() {
                Ok(number) => parse_revision(number).map(Some),
                Err(_) => status(word).and_then(|()| Err(nonsense(word))),
            },
        }
    }

    pub(in crate::stock) async fn stale(
        &self,
        product: ProductId,
        age: Duration,
        most: usize,
    ) -> Result<Stale, GateError> {
        let keys = self.server.keys.of_sale(product);
        let reply: Vec<String> = self
            .server
            .invoke(product, &self.server.scripts.stale, &keys, |link, call| {
                call.arg(&link.server_id).arg(age.as_millis() as u64).arg(most);
            })
            .await?;
        let (stale, unreadable) = parse_stale(&reply).map_err(|error| self.server.unreadable(product, error))?;
        if let Some(member) = unreadable {
            self.server.broken.note(
                product,
                &format!(
                    "`{member}` in flight is no purchase; `seckill deployment rebuild-gate {product}` makes it anew"
                ),
            );
        }
        Ok(stale)
    }
}
