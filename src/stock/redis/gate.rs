//! The gate itself: what it is made of, and the steps that change one sale.

use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use super::mark;
use super::recently_noted::RecentlyNoted;
use super::replies::status;
use super::reserving::AddressLimits;
use super::scripts::{CHUNK, add_settings};
use super::server::RedisAccess;
use super::sold_out_cache::SoldOutCache;
use crate::config;
use crate::model::{Denial, ProductId, Purchase, SaleSettings, Timestamp, UserId};
use crate::stock::rate_limiter::rate_wait;
use crate::stock::types::{GateError, Release};

/// See the module.
pub struct RedisGate {
    pub(super) server: RedisAccess,
    pub(super) sold_out: SoldOutCache,
    /// When it was last probed whether the servers do what a purchase needs, and what came of it.
    pub(super) probed: tokio::sync::Mutex<Option<(Instant, Result<(), GateError>)>>,
    /// Servers that could not be used then.
    pub(super) servers_down: AtomicUsize,
    pub(super) noted: RecentlyNoted,
    pub(super) address_limits: AddressLimits,
}

impl RedisGate {
    pub(in crate::stock) fn new(settings: &config::Redis, links: usize) -> Result<Self, String> {
        Ok(Self {
            server: RedisAccess::new(settings, links)?,
            sold_out: SoldOutCache::default(),
            probed: tokio::sync::Mutex::default(),
            servers_down: AtomicUsize::default(),
            noted: RecentlyNoted::default(),
            address_limits: AddressLimits::default(),
        })
    }

    pub(in crate::stock) fn is_on_several_servers(&self) -> bool {
        self.server.shards.are_several()
    }

    /// The time by which sales begin and end.
    pub(in crate::stock) fn now(&self) -> Timestamp {
        self.server.shards.now()
    }

    pub(in crate::stock) fn denial(&self, product: ProductId, user: UserId) -> Option<Denial> {
        self.sold_out.denial(product, user)
    }

    pub(in crate::stock) async fn mark_written(
        &self,
        product: ProductId,
        purchases: &[Purchase],
    ) -> Result<(), GateError> {
        let server = &self.server;
        let keys = [server.keys.gate(product), server.keys.flight(product)];
        for chunk in purchases.chunks(CHUNK) {
            let mut member = String::new();
            let reply: String = server
                .invoke(product, &server.scripts.mark_written, &keys, |link, call| {
                    call.arg(&link.server_id);
                    for purchase in chunk {
                        member.clear();
                        mark::push_in_flight(&mut member, purchase);
                        call.arg(&member);
                    }
                })
                .await?;
            status(&reply)?;
        }
        Ok(())
    }

    pub(in crate::stock) async fn release(
        &self,
        product: ProductId,
        epoch: i64,
        ended: &[Release],
    ) -> Result<(), GateError> {
        let (server, now) = (&self.server, Timestamp::now());
        let keys = server.keys.of_sale(product);
        let mut mark = String::new();
        for chunk in ended.chunks(CHUNK) {
            let reply = server
                .invoke(product, &server.scripts.release, &keys, |link, call| {
                    call.arg(&link.server_id).arg(epoch).arg(server.keys.rate_prefix(product));
                    for Release { life, call: of_late } in chunk {
                        let wait = rate_wait(&life.purchase, now).as_millis() as u64;
                        mark.clear();
                        mark::push_life(&mut mark, life);
                        call.arg(&mark).arg(life.purchase.user_id.get()).arg(wait);
                        call.arg(of_late.map(|call| format!(":{call}")).unwrap_or_default());
                    }
                })
                .await;
            self.changed(product, reply)?;
        }
        Ok(())
    }

    pub(in crate::stock) async fn configure(
        &self,
        product: ProductId,
        settings: &SaleSettings,
    ) -> Result<(), GateError> {
        let server = &self.server;
        let keys = [server.keys.gate(product), server.keys.flight(product)];
        let reply = server
            .invoke(product, &server.scripts.configure, &keys, |link, call| {
                call.arg(&link.server_id);
                add_settings(call, settings);
            })
            .await;
        self.changed(product, reply)
    }

    /// After a step that may have changed whom a sale denies, also one whose reply did not come.
    pub(super) fn changed(&self, product: ProductId, reply: Result<String, GateError>) -> Result<(), GateError> {
        self.sold_out.forget(product);
        status(&reply?)
    }
}
