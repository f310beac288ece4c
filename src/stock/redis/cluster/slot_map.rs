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
use super::super::shard::{LinkSettings, Master, Shard};
use super::super::troubles::Troubles;
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
    links: LinkSettings,
    runtime: Handle,
    known: Mutex<Known>,
    troubles: Troubles,
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
    pub(in crate::stock::redis) fn new(settings: &config::Redis, links: LinkSettings) -> Result<Self, String> {
        let login = Login::of_redis(settings)?;
        Ok(Self {
            seeds: Address::of_nodes(settings)?,
            informants: Informants::new(login.clone(), "no node of the cluster in redis.nodes answers"),
            login,
            links,
            runtime: Handle::current(),
            known: Mutex::default(),
            troubles: Troubles::of(String::new()),
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
            let error = refused("CLUSTERDOWN", &format!("no master has slot {slot}"));
            self.troubles.note(&error);
            error
        })
    }

    /// All shards that are known.
    pub(in crate::stock::redis) async fn shards(self: &Arc<Self>) -> Result<Vec<Arc<Shard>>, GateError> {
        if self.map().shards.is_empty() {
            self.first_look().await?;
        }
        Ok(self.map().shards.clone())
    }

    /// Whether each slot has a master.
    pub(in crate::stock::redis) fn is_whole(&self) -> bool {
        self.map().owners.iter().all(Option::is_some)
    }

    /// Those that are known without a question.
    pub(in crate::stock::redis) fn known_shards(&self) -> Vec<Arc<Shard>> {
        self.map().shards.clone()
    }

    /// The shard that has this slot, if that is known without a question.
    pub(in crate::stock::redis) fn known_shard(&self, slot: Slot) -> Option<Arc<Shard>> {
        self.map().of(slot).cloned()
    }

    /// Whether most nodes that live were heard by the last look.
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
        if self.has_just_looked() {
            return;
        }
        let cluster = self.clone();
        self.runtime.spawn(async move {
            let Ok(_looking) = cluster.looking.try_lock() else { return };
            if !cluster.has_just_looked() {
                let _ = cluster.look().await;
            }
        });
    }

    fn has_just_looked(&self) -> bool {
        self.known.lock().looked_at.is_some_and(|at| at.elapsed() < RETRY_PAUSE)
    }

    async fn look(&self) -> Result<(), GateError> {
        let looked = self.look_at_all().await;
        self.known.lock().looked_at = Some(Instant::now());
        match &looked {
            Ok(()) if self.is_whole() => self.troubles.over(),
            // Whoever wants a slot without a master notes that.
            Ok(()) => {}
            Err(error) => self.troubles.note(error),
        }
        looked
    }

    /// Asks all nodes, and believes of each slot who knows the newest: a master that was cut off still takes it for its own.
    async fn look_at_all(&self) -> Result<(), GateError> {
        let mut whom = self.known.lock().addresses.clone();
        whom.extend(self.seeds.iter().cloned());
        let whom: Vec<Address> = whom.into_iter().collect();
        let mut question = redis::cmd("CLUSTER");
        question.arg("NODES");
        let replies = self.informants.ask(&whom, &question, |node, answer: Result<String, _>| {
            let text = answer.map_err(|error| refusal(node, error))?;
            let reply = NodesReply::read(&text, node, self.login.is_encrypted());
            let nonsense = || format!("CLUSTER NODES of {node} says `{}`", text.escape_debug());
            reply.ok_or_else(|| GateError::Unreachable(nonsense()))
        });
        let replies = replies.await.inspect_err(|_| self.known.lock().is_minority = true)?;
        let mut seen = Seen::default();
        replies.into_iter().for_each(|reply| seen.add(reply));
        let is_minority = seen.answered.len() * 2 <= seen.alive.len();
        // Whoever is cut off knows less than was known before.
        if is_minority && !self.map().shards.is_empty() {
            self.known.lock().is_minority = true;
            return Ok(());
        }
        self.take_over(seen, is_minority)
    }

    fn take_over(&self, seen: Seen, is_minority: bool) -> Result<(), GateError> {
        let before = self.map();
        let by_name: HashMap<&str, &Arc<Shard>> =
            before.shards.iter().map(|shard| (shard.name.as_str(), shard)).collect();
        let mut map = SlotMap { owners: Vec::with_capacity(seen.newest.len()), shards: Vec::new() };
        let mut positions: HashMap<&Address, u16> = HashMap::new();
        for owner in &seen.newest {
            let Some((_, address)) = owner else {
                map.owners.push(None);
                continue;
            };
            let position = match positions.get(address) {
                Some(position) => *position,
                None => {
                    let position = map.shards.len() as u16;
                    // One that goes on keeps its links.
                    map.shards.push(match by_name.get(address.to_string().as_str()) {
                        Some(shard) => (*shard).clone(),
                        None => Arc::new(self.new_shard(address.clone()).map_err(GateError::Misconfigured)?),
                    });
                    positions.insert(address, position);
                    position
                }
            };
            map.owners.push(Some(position));
        }
        if map.shards.is_empty() {
            return Err(refused("CLUSTERDOWN", "no master has any slot"));
        }
        self.informants.keep(&seen.addresses.iter().chain(&self.seeds).cloned().collect::<Vec<_>>());
        let mut known = self.known.lock();
        (known.map, known.addresses, known.is_minority) = (Arc::new(map), seen.addresses, is_minority);
        Ok(())
    }

    fn new_shard(&self, address: Address) -> Result<Shard, String> {
        let name = address.to_string();
        let server = RedisServer::new(address, &self.login, self.links.connections())?;
        Ok(Shard::new(name, Master::OfCluster(Arc::new(server)), self.links, &self.runtime))
    }
}

/// What all nodes together say.
struct Seen {
    /// Of each slot, the master that the newest says.
    newest: Vec<Option<(u64, Address)>>,
    addresses: BTreeSet<Address>,
    /// Ids of those that answered, and of those that live.
    answered: BTreeSet<String>,
    alive: BTreeSet<String>,
}

impl Default for Seen {
    fn default() -> Self {
        let newest = vec![None; usize::from(SLOTS)];
        Self { newest, addresses: BTreeSet::new(), answered: BTreeSet::new(), alive: BTreeSet::new() }
    }
}

impl Seen {
    fn add(&mut self, reply: NodesReply) {
        self.answered.insert(reply.own_id);
        self.addresses.extend(reply.addresses);
        self.alive.extend(reply.alive);
        for master in reply.masters {
            for slot in master.slots.iter().flat_map(|(first, last)| *first..=*last) {
                let newest = &mut self.newest[usize::from(slot)];
                if newest.as_ref().is_none_or(|(epoch, _)| *epoch < master.epoch) {
                    *newest = Some((master.epoch, master.address.clone()));
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_slot_the_newest_is_believed_and_each_node_counts_once() {
        let asked = |text: &str| Address::parse(text).unwrap();
        let old = "a h1:1@2 myself,master - 0 0 1 connected 0-9\nb h2:1@2 slave a 0 0 7 connected\n";
        let new = "a h1:1@2 master,fail? - 0 0 1 connected\nb h2:1@2 myself,master - 0 0 7 connected 0-8\n";
        let mut seen = Seen::default();
        // One node by its name, another one by two.
        for (node, text) in [("h1:1", old), ("h2:1", new), ("other-name:1", new)] {
            seen.add(NodesReply::read(text, &asked(node), false).unwrap());
        }
        let owner = |slot: usize| seen.newest[slot].as_ref().map(|(_, address)| address.host.as_str());
        assert_eq!((owner(0), owner(8), owner(9), owner(10)), (Some("h2"), Some("h2"), Some("h1"), None));
        assert_eq!((seen.answered.len(), seen.alive.len(), seen.addresses.len()), (2, 2, 2));
    }
}
