//! How a gate in Redis is closed, filled and opened. Only over a closed gate, and only on the server it is meant for.

use std::time::Duration;

use deadpool_redis::redis::{self, Value};
use uuid::Uuid;

use super::replies::{GateReply, parse_readmitted};
use super::{CHUNK, RedisGate, SENTINEL, add_terms};
use crate::model::{ProductId, Purchase, SaleTerms};
use crate::stock::{Answer, GateError, Inspection};

/// A staged set of buyers that nobody installs goes away by itself.
const STAGING_TTL: Duration = Duration::from_secs(600);

/// So does a closed gate that nobody opens. A rebuild takes seconds, unless no consumer runs.
const CLOSED_TTL: Duration = Duration::from_secs(24 * 3600);

/// Buyers that are loaded beside a closed gate.
pub struct Staging {
    product: ProductId,
    home: String,
    epoch: i64,
    key: String,
}

impl RedisGate {
    /// Looks at a gate over a connection made for it, so that it is the server of now that answers.
    pub(in crate::stock) async fn inspect(&self, product: ProductId) -> Result<Inspection, GateError> {
        let slot = self.slot(product);
        if let Some(link) = slot.current() {
            slot.drop_link(&link);
        }
        let link = self.link(slot).await?;
        let mut ask = redis::pipe();
        self.ask_gate(&mut ask, product);
        let mut reply = self.ask_each(slot, &link, &mut ask).await?.into_iter();
        let home = link.home.clone();
        let found = GateReply::read(&mut reply)?.found(&home);
        Ok(Inspection { home, found })
    }

    /// Closes whatever gate of an older epoch there is. After it, no purchase of an older epoch can be admitted.
    pub(in crate::stock) async fn close(&self, product: ProductId, home: &str, epoch: i64) -> Result<(), GateError> {
        let keys = [self.keys.gate(product), self.keys.buyers(product), self.keys.flight(product)];
        let reply = self
            .invoke_at(product, home, &self.close, &keys, |call| {
                call.arg(home).arg(epoch).arg(CLOSED_TTL.as_millis() as u64);
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
        let keys = [self.keys.gate(product), self.keys.buyers(product), self.keys.flight(product)];
        let mut home = String::new();
        let reply = self
            .invoke::<String>(product, &self.retire, &keys, |link, call| {
                home.clone_from(&link.home);
                call.arg(&link.home).arg(epoch).arg(age.as_millis() as u64);
            })
            .await;
        match reply.as_deref() {
            Ok("stays") => Ok(None),
            _ => self.changed(product, reply).map(|()| Some(home)),
        }
    }

    /// Gives units to purchases that were promised and set aside, under their own order ids.
    pub(in crate::stock) async fn readmit(
        &self,
        product: ProductId,
        purchases: &[Purchase],
    ) -> Result<(i64, Vec<Answer>), GateError> {
        let keys = [self.keys.gate(product), self.keys.buyers(product), self.keys.flight(product)];
        let reply = self
            .invoke::<Vec<Value>>(product, &self.readmit, &keys, |link, call| {
                call.arg(&link.home);
                for purchase in purchases {
                    call.arg(purchase.user_id.get()).arg(purchase.order_id.to_string());
                }
            })
            .await?;
        parse_readmitted(reply)
    }

    /// Begins to load the buyers of the gate of `epoch` on the server `home`.
    pub(in crate::stock) async fn stage(
        &self,
        product: ProductId,
        home: &str,
        epoch: i64,
    ) -> Result<Staging, GateError> {
        let key = self.keys.staging(product, &Uuid::new_v4().simple());
        let staging = Staging { product, home: home.to_owned(), epoch, key };
        self.load(&staging, &[(SENTINEL.to_owned(), epoch.to_string())]).await?;
        Ok(staging)
    }

    /// Loads buyers.
    pub(in crate::stock) async fn add_staged(&self, staging: &Staging, held: &[Purchase]) -> Result<(), GateError> {
        for chunk in held.chunks(CHUNK) {
            let fields: Vec<_> =
                chunk.iter().map(|held| (held.user_id.to_string(), held.order_id.to_string())).collect();
            self.load(staging, &fields).await?;
        }
        Ok(())
    }

    async fn load(&self, staging: &Staging, fields: &[(String, String)]) -> Result<(), GateError> {
        let slot = self.slot(staging.product);
        let link = self.link(slot).await?;
        if link.home != staging.home {
            return Err(GateError::Lost);
        }
        let mut load = redis::pipe();
        load.atomic().hset_multiple(&staging.key, fields).ignore();
        load.pexpire(&staging.key, STAGING_TTL.as_millis() as i64).ignore();
        let loaded = load.query_async::<()>(&mut link.conn()).await;
        self.answered(slot, &link, loaded)
    }

    /// Opens the closed gate with the loaded buyers.
    pub(in crate::stock) async fn install(&self, staging: Staging, terms: &SaleTerms) -> Result<(), GateError> {
        let Staging { product, home, epoch, key } = staging;
        let keys = [self.keys.gate(product), self.keys.buyers(product), self.keys.flight(product), key];
        let reply = self
            .invoke_at(product, &home, &self.install, &keys, |call| {
                call.arg(&home).arg(epoch);
                add_terms(call, terms);
            })
            .await;
        self.changed(product, reply)
    }
}
