//! Where the gate of each product is kept: on one Redis, or on the shards of a cluster.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::address::{Address, Login, RedisServer};
use super::cluster::{Cluster, slot_of_key, slot_of_product};
use super::sentinels::Sentinels;
use super::shard::{LinkSettings, Master, Shard};
use crate::config::{self, RedisMode};
use crate::model::{ProductId, Timestamp};
use crate::stock::types::GateError;

/// See the module.
pub(super) enum Shards {
    /// A Redis that is alone, or the master that Sentinels watch.
    One(Arc<Shard>),
    /// The masters of a cluster.
    Of(Arc<Cluster>),
}

impl Shards {
    /// `links` of each carry purchases. Must be called on the main runtime.
    pub(super) fn new(settings: &config::Redis, links: usize) -> Result<Self, String> {
        let links = LinkSettings::new(settings, links);
        let one = |master| Self::One(Arc::new(Shard::new(String::new(), master, links, &Handle::current())));
        Ok(match settings.mode {
            RedisMode::Single => {
                let server =
                    RedisServer::new(Address::of_addr(settings)?, &Login::of_redis(settings)?, links.connections())?;
                one(Master::At(Arc::new(server)))
            }
            RedisMode::Sentinel => one(Master::Watched(Box::new(Sentinels::new(settings, links.connections())?))),
            RedisMode::Cluster => Self::Of(Arc::new(Cluster::new(settings, links)?)),
        })
    }

    /// The shard of a product.
    pub(super) async fn of(&self, product: ProductId) -> Result<Arc<Shard>, GateError> {
        match self {
            Self::One(shard) => Ok(shard.clone()),
            Self::Of(cluster) => cluster.shard(slot_of_product(product)).await,
        }
    }

    /// The shard of a key that is no product's.
    pub(super) async fn of_key(&self, key: &str) -> Result<Arc<Shard>, GateError> {
        match self {
            Self::One(shard) => Ok(shard.clone()),
            Self::Of(cluster) => cluster.shard(slot_of_key(key)).await,
        }
    }

    /// All there are.
    pub(super) async fn all(&self) -> Result<Vec<Arc<Shard>>, GateError> {
        match self {
            Self::One(shard) => Ok(vec![shard.clone()]),
            Self::Of(cluster) => cluster.shards().await,
        }
    }

    /// Whether a product's gate may be on another server than another product's.
    pub(super) fn are_several(&self) -> bool {
        matches!(self, Self::Of(_))
    }

    /// Whether somebody has each product, as far as is known.
    pub(super) fn are_whole(&self) -> bool {
        match self {
            Self::One(_) => true,
            Self::Of(cluster) => cluster.is_whole(),
        }
    }

    /// A step was sent elsewhere, or a server did not answer: who has what may have changed.
    pub(super) fn look_again(&self) {
        if let Self::Of(cluster) = self {
            cluster.look_again();
        }
    }

    /// Whether most Sentinels, or most nodes, were heard when they were asked last. If not, this instance may be cut off from them,
    /// together with a master that was replaced, and must not begin a gate there.
    pub(super) fn hear_most(&self) -> bool {
        match self {
            Self::One(shard) => match &*shard.master {
                Master::At(_) | Master::OfCluster(_) => true,
                Master::Watched(sentinels) => sentinels.hears_most(),
            },
            Self::Of(cluster) => cluster.hears_most(),
        }
    }

    /// A tag of keys that this shard has, as far as is known; the first one there is.
    pub(super) fn tag_of(&self, shard: &Arc<Shard>, tags: impl Iterator<Item = String>) -> Option<String> {
        let mut tags = tags;
        match self {
            Self::One(_) => tags.next(),
            Self::Of(cluster) => {
                tags.find(|tag| cluster.known_shard(slot_of_key(tag)).is_some_and(|found| Arc::ptr_eq(&found, shard)))
            }
        }
    }

    /// The earliest of their clocks, by which every sale has begun that has begun.
    pub(super) fn now(&self) -> Timestamp {
        match self {
            Self::One(shard) => shard.clock.now(),
            Self::Of(cluster) => {
                let clocks = cluster.known_shards();
                clocks.iter().map(|shard| shard.clock.now()).min().unwrap_or_else(Timestamp::now)
            }
        }
    }
}
