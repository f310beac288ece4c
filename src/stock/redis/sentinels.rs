//! Sentinels, who watch a master and its replicas, promote one of these when the master is gone, and say where it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deadpool_redis::PoolError;
use deadpool_redis::redis::{self, Cmd, ErrorKind, RedisError};
use parking_lot::Mutex;

use super::address::{Address, Login, RedisServer};
use super::failure::sort_connect;
use super::informants::Informants;
use crate::config;
use crate::stock::types::GateError;

/// See the module.
pub(super) struct Sentinels {
    addresses: Vec<Address>,
    master_name: String,
    informants: Informants,
    login: Login,
    /// Connections to each master at most.
    connections: usize,
    last: Mutex<Option<Arc<RedisServer>>>,
    /// Most of them answered the last question.
    hears_most: AtomicBool,
}

impl Sentinels {
    pub(super) fn new(settings: &config::Redis, connections: usize) -> Result<Self, String> {
        Ok(Self {
            addresses: nodes(settings)?,
            master_name: settings.master_name.clone(),
            informants: Informants::new(Login::of_sentinels(settings)?),
            login: Login::of_redis(settings)?,
            connections,
            last: Mutex::default(),
            hears_most: AtomicBool::default(),
        })
    }

    /// The master of now, as most of them know it. One who was cut off may name an old one, with a smaller epoch of its
    /// configuration.
    pub(super) async fn master(&self) -> Result<Arc<RedisServer>, GateError> {
        let (mut newest, mut answered, mut failure) = (None, 0, None);
        for (sentinel, answer) in self.informants.ask(&self.addresses, &self.question()).await {
            let answer = answer.map_err(|error| self.refusal(&sentinel, error));
            match answer.and_then(|answer| self.read(&sentinel, &answer)) {
                Ok(found) => {
                    answered += 1;
                    newest = newest.max(Some(found));
                }
                // What is configured wrongly is worth more to who reads it than who does not answer.
                Err(GateError::Unreachable(_)) if failure.is_some() => {}
                Err(error) => failure = Some(error),
            }
        }
        self.hears_most.store(answered * 2 > self.addresses.len(), Ordering::Relaxed);
        let Some((_, address)) = newest else {
            let silent = || GateError::Unreachable("none of the Sentinels in redis.nodes answers".to_owned());
            return Err(failure.unwrap_or_else(silent));
        };
        let mut last = self.last.lock();
        if let Some(last) = last.as_ref().filter(|last| last.address == address) {
            return Ok(last.clone());
        }
        let server = RedisServer::new(address, &self.login, self.connections).map_err(GateError::Misconfigured)?;
        Ok(last.insert(Arc::new(server)).clone())
    }

    /// Whether most of them were heard when they were asked last.
    pub(super) fn hears_most(&self) -> bool {
        self.hears_most.load(Ordering::Relaxed)
    }

    fn question(&self) -> Cmd {
        let mut question = redis::cmd("SENTINEL");
        question.arg("MASTER").arg(&self.master_name);
        question
    }

    /// What it means that a Sentinel says nothing of its master.
    fn refusal(&self, sentinel: &Address, error: RedisError) -> GateError {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => {
                let problem =
                    format!("look at redis.sentinel_username and redis.sentinel_password [{sentinel}: {error}]");
                GateError::Refused(format!("NOAUTH: a Sentinel refuses us: {problem}"))
            }
            (_, Some("ERR")) => GateError::Misconfigured(format!(
                "redis.master_name: {sentinel} in redis.nodes knows no master `{}`, or is no Sentinel [{}]",
                self.master_name,
                error.detail().unwrap_or_default()
            )),
            _ => sort_connect(&PoolError::Backend(error)),
        }
    }

    /// The epoch of what a Sentinel knows, and the master's address.
    fn read(&self, sentinel: &Address, fields: &HashMap<String, String>) -> Result<(u64, Address), GateError> {
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let address = Address::parse(&format!("{}:{}", field("ip"), field("port")));
        match (field("config-epoch").parse(), address) {
            (Ok(epoch), Some(address)) => Ok((epoch, address)),
            _ => Err(GateError::Protocol(format!("the Sentinel {sentinel} says of its master {fields:?}"))),
        }
    }
}

/// The addresses in `redis.nodes`.
pub(super) fn nodes(settings: &config::Redis) -> Result<Vec<Address>, String> {
    let address = |node: &String| Address::parse(node).ok_or_else(|| format!("redis.nodes: {node}: must be host:port"));
    settings.nodes.iter().map(address).collect()
}
