//! Which shard has which slot, as the nodes say, and how one learns that it has changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use deadpool_redis::PoolError;
use deadpool_redis::redis::{self, RedisError};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::super::address::{Address, Login, RedisServer};
use super::super::connection::RETRY_PAUSE;
use super::super::failure::{refused, sort_connect};
use super::super::informants::Informants;
use super::super::sentinels::nodes;
use super::super::shard::{Links, Master, Shard};
use super::nodes::NodesReply;
use super::slots::{SLOTS, Slot};
use crate::config;
use crate::stock::types::GateError;

/// See the module.
pub(in crate::stock::redis) struct Cluster {
    /// Those that are configured.
    seeds: Vec<Address>,
    informants: Informants,
    login: Login,
    links: Links,
    runtime: Handle,
    known: Mutex<Known>,
    /// One look at a time; when the last one failed, and why.
    looking: tokio::sync::Mutex<Option<(Instant, GateError)>>,
}

/// What the last look has found.
#[derive(Default)]
struct Known {
    map: Arc<SlotMap>,
    /// All nodes, so that there is somebody to ask when those that are configured are gone.
    addresses: BTreeSet<Address>,
    looked_at: Option<Instant>,
    /// Most nodes that live did not answer: this instance may be cut off together with a master that was replaced.
    is_minority: bool,
}

/// Which shard has which slot.
#[derive(Default)]
pub(in crate::stock::redis) struct SlotMap {
    /// Positions in `shards`; empty before the first look.
    owners: Vec<Option<u16>>,
    shards: Vec<Arc<Shard>>,
}

impl SlotMap {
    fn of(&self, slot: Slot) -> Option<&Arc<Shard>> {
        let owner = self.owners.get(usize::from(slot)).copied().flatten()?;
        self.shards.get(usize::from(owner))
    }
}

impl Cluster {
    /// Must be called on the main runtime.
    pub(in crate::stock::redis) fn new(settings: &config::Redis, links: Links) -> Result<Self, String> {
        Ok(Self {
            seeds: nodes(settings)?,
            informants: Informants::new(Login::of_redis(settings)?),
            login: Login::of_redis(settings)?,
            links,
            runtime: Handle::current(),
            known: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        })
    }

    /// The shard that has this slot.
    pub(in crate::stock::redis) async fn shard(self: &Arc<Self>, slot: Slot) -> Result<Arc<Shard>, GateError> {
        let mut map = self.map();
        if map.shards.is_empty() {
            self.first_look().await?;
            map = self.map();
        }
        map.of(slot).cloned().ok_or_else(|| {
            self.look_again();
            refused("CLUSTERDOWN", &format!("no master has slot {slot}"))
        })
    }

    /// All shards that are known.
    pub(in crate::stock::redis) async fn shards(self: &Arc<Self>) -> Result<Vec<Arc<Shard>>, GateError> {
        if self.map().shards.is_empty() {
            self.first_look().await?;
        }
        Ok(self.map().shards.clone())
    }

    /// Those that are known without a question.
    pub(in crate::stock::redis) fn known_shards(&self) -> Vec<Arc<Shard>> {
        self.map().shards.clone()
    }

    /// The shard that has this slot, if that is known without a question.
    pub(in crate::stock::redis) fn known_shard(&self, slot: Slot) -> Option<Arc<Shard>> {
        self.map().of(slot).cloned()
    }

    /// Whether most nodes were heard: what this instance knows is what holds.
    pub(in crate::stock::redis) fn hears_most(&self) -> bool {
        !self.known.lock().is_minority
    }

    fn map(&self) -> Arc<SlotMap> {
        self.known.lock().map.clone()
    }

    /// Whoever comes meanwhile waits for the same look.
    async fn first_look(self: &Arc<Self>) -> Result<(), GateError> {
        let mut last_failure = self.looking.lock().await;
        if !self.map().shards.is_empty() {
            return Ok(());
        }
        if let Some((at, problem)) = &*last_failure
            && at.elapsed() < RETRY_PAUSE
        {
            return Err(problem.clone());
        }
        let (cluster, looking) = (self.clone(), self.runtime.clone());
        let looked = looking.spawn(async move { cluster.look().await }).await;
        let looked = looked.unwrap_or_else(|error| Err(GateError::Unreachable(error.to_string())));
        *last_failure = looked.as_ref().err().map(|problem| (Instant::now(), problem.clone()));
        looked
    }

    /// Something was not where it was: looks in the background, unless somebody does or just did.
    pub(in crate::stock::redis) fn look_again(self: &Arc<Self>) {
        let is_new = self.known.lock().looked_at.is_some_and(|at| at.elapsed() < RETRY_PAUSE);
        if is_new {
            return;
        }
        let cluster = self.clone();
        self.runtime.spawn(async move {
            let Ok(_looking) = cluster.looking.try_lock() else { return };
            let _ = cluster.look().await;
        });
    }

    /// Asks all nodes, and believes of each slot who knows the newest: a master that was cut off still takes it for its own.
    async fn look(&self) -> Result<(), GateError> {
        let mut whom = self.known.lock().addresses.clone();
        whom.extend(self.seeds.iter().cloned());
        let whom: Vec<Address> = whom.into_iter().collect();
        let mut question = redis::cmd("CLUSTER");
        question.arg("NODES");
        let (mut addresses, mut alive) = (BTreeSet::new(), BTreeSet::new());
        let mut newest: Vec<Option<(u64, Address)>> = vec![None; usize::from(SLOTS)];
        let (mut failure, mut answered) = (None, 0);
        for (node, answer) in self.informants.ask::<String>(&whom, &question).await {
            let read = answer.map_err(|error| refusal(&node, error)).and_then(|text| {
                let nonsense =
                    || GateError::Protocol(format!("CLUSTER NODES of {node} says `{}`", text.escape_debug()));
                NodesReply::read(&text, &node, self.login.is_encrypted()).ok_or_else(nonsense)
            });
            match read {
                Ok(reply) => {
                    answered += 1;
                    addresses.extend(reply.addresses);
                    alive.extend(reply.alive);
                    for master in reply.masters {
                        for slot in master.slots.iter().flat_map(|(first, last)| *first..=*last) {
                            let newest = &mut newest[usize::from(slot)];
                            if newest.as_ref().is_none_or(|(epoch, _)| *epoch < master.epoch) {
                                *newest = Some((master.epoch, master.address.clone()));
                            }
                        }
                    }
                }
                // What is configured wrongly is worth more to who reads it than who does not answer.
                Err(GateError::Unreachable(_)) if failure.is_some() => {}
                Err(error) => failure = Some(error),
            }
        }
        let is_minority = answered * 2 <= alive.len();
        if answered == 0 {
            let mut known = self.known.lock();
            (known.looked_at, known.is_minority) = (Some(Instant::now()), true);
            let silent = || GateError::Unreachable("no node of the cluster in redis.nodes answers".to_owned());
            return Err(failure.unwrap_or_else(silent));
        }
        self.take_over(newest, addresses, is_minority)
    }

    fn take_over(
        &self,
        newest: Vec<Option<(u64, Address)>>,
        addresses: BTreeSet<Address>,
        is_minority: bool,
    ) -> Result<(), GateError> {
        let mut known = self.known.lock();
        let before: HashMap<&str, &Arc<Shard>> =
            known.map.shards.iter().map(|shard| (shard.name.as_str(), shard)).collect();
        let mut map = SlotMap { owners: Vec::with_capacity(newest.len()), shards: Vec::new() };
        let mut positions: HashMap<Address, u16> = HashMap::new();
        for owner in newest {
            let Some((_, address)) = owner else {
                map.owners.push(None);
                continue;
            };
            let position = match positions.get(&address) {
                Some(position) => *position,
                None => {
                    let position = map.shards.len() as u16;
                    // One that goes on keeps its links.
                    map.shards.push(match before.get(address.to_string().as_str()) {
                        Some(shard) => (*shard).clone(),
                        None => Arc::new(self.new_shard(address.clone()).map_err(GateError::Misconfigured)?),
                    });
                    positions.insert(address, position);
                    position
                }
            };
            map.owners.push(Some(position));
        }
        // Those that have gone stay on the list until others are there to ask.
        self.informants.keep(&addresses.iter().chain(&self.seeds).cloned().collect::<Vec<_>>());
        *known = Known { map: Arc::new(map), addresses, looked_at: Some(Instant::now()), is_minority };
        Ok(())
    }

    fn new_shard(&self, address: Address) -> Result<Shard, String> {
        let name = address.to_string();
        let server = RedisServer::new(address, &self.login, self.links.connections())?;
        Ok(Shard::new(name, Master::At(Arc::new(server)), self.links, &self.runtime))
    }
}

/// What it means that a node does not say who the others are.
fn refusal(node: &Address, error: RedisError) -> GateError {
    match error.code() {
        Some("ERR") => GateError::Misconfigured(format!(
            "redis.mode: {node} in redis.nodes is no node of a cluster [{}]",
            error.detail().unwrap_or_default()
        )),
        _ => sort_connect(&PoolError::Backend(error)),
    }
}
