//! A shard: one master that keeps gates, whichever it is at the time, and the links to it. A Redis that is alone is one shard.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::address::RedisServer;
use super::clock::ServerClock;
use super::connection::ConnectionCell;
use super::sentinels::Sentinels;
use super::troubles::Troubles;
use crate::config;
use crate::model::ProductId;
use crate::stock::types::GateError;

/// Links for others than purchases: to look, to be probed, to be asked whose gates these are.
const OTHER_LINKS: usize = 3;

/// How the master of a shard is found, each time that one connects.
pub(super) enum Master {
    /// It has one address. If another server comes to be behind it, its id says so.
    At(Arc<RedisServer>),
    /// The same of a cluster.
    OfCluster(Arc<RedisServer>),
    /// Sentinels know it.
    Watched(Box<Sentinels>),
}

impl Master {
    pub(super) async fn find(&self) -> Result<Arc<RedisServer>, GateError> {
        match self {
            Self::At(server) | Self::OfCluster(server) => Ok(server.clone()),
            Self::Watched(sentinels) => sentinels.master().await,
        }
    }

    pub(super) fn is_of_cluster(&self) -> bool {
        matches!(self, Self::OfCluster(_))
    }
}

/// How many links there are to each master, and in which database.
#[derive(Clone, Copy)]
pub(super) struct LinkSettings {
    /// Of purchases.
    count: usize,
    pool_size: usize,
    database: u16,
}

impl LinkSettings {
    /// `count`: how many links carry purchases, clamped to `pool_size`.
    pub(super) fn new(settings: &config::Redis, count: usize) -> Self {
        Self { count: count.clamp(1, settings.pool_size), pool_size: settings.pool_size, database: settings.db }
    }

    /// Connections to each master at most.
    pub(super) fn connections(&self) -> usize {
        self.pool_size + OTHER_LINKS
    }
}

/// See the module.
pub(super) struct Shard {
    /// Where its master is, for people; empty where there is one shard only.
    pub(super) name: String,
    pub(super) master: Arc<Master>,
    /// For purchases, and what becomes of them. The sold-out cache looks through them, too, and the server's id is asked through the first.
    pub(super) cells: Vec<ConnectionCell>,
    /// For all others who only look: however many they are, no purchase waits behind them.
    pub(super) reader: ConnectionCell,
    /// For the question whether the server answers, so that nobody else's questions delay it.
    pub(super) prober: ConnectionCell,
    /// For the question whose gates these are. Who asks gives up soon, and must not keep the prober from connecting.
    pub(super) owner_asker: ConnectionCell,
    pub(super) clock: ServerClock,
    pub(super) troubles: Troubles,
    /// The server that its links were found to lead to last.
    pub(super) known_server: Mutex<Option<String>>,
}

impl Shard {
    pub(super) fn new(name: String, master: Master, links: LinkSettings, runtime: &Handle) -> Self {
        let master = Arc::new(master);
        let cell = || ConnectionCell::new(master.clone(), links.database, runtime.clone());
        Self {
            troubles: Troubles::of(name.clone()),
            name,
            cells: (0..links.count).map(|_| cell()).collect(),
            reader: cell(),
            prober: cell(),
            owner_asker: cell(),
            clock: ServerClock::default(),
            known_server: Mutex::default(),
            master,
        }
    }

    /// The cell that a product's steps go through.
    pub(super) fn cell(&self, product: ProductId) -> &ConnectionCell {
        &self.cells[product.get() as usize % self.cells.len()]
    }

    pub(super) fn all_cells(&self) -> impl Iterator<Item = &ConnectionCell> {
        self.cells.iter().chain([&self.reader, &self.prober, &self.owner_asker])
    }
}
