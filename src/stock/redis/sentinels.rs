//! Sentinels, who watch a master and its replicas, promote one of these when the master is gone, and say where it is.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deadpool_redis::PoolError;
use deadpool_redis::redis::{self, Cmd, ErrorKind, RedisError};
use tokio::sync::Mutex;

use super::address::{Address, Login, RedisServer};
use super::connection::RETRY_PAUSE;
use super::failure::sort_connect;
use super::informants::Informants;
use crate::config;
use crate::stock::types::GateError;

/// The master, and when that was asked.
type LastAnswer = (Instant, Result<Arc<RedisServer>, GateError>);

/// A resolver may take many seconds, and purchases wait for this.
const LOOKED_UP_WITHIN: Duration = Duration::from_millis(250);

/// See the module.
pub(super) struct Sentinels {
    addresses: Vec<Address>,
    master_name: String,
    informants: Informants,
    login: Login,
    /// Connections to each master at most.
    connections: usize,
    last: Mutex<Option<LastAnswer>>,
    /// Most of them answered the last question.
    hears_most: AtomicBool,
}

/// What a Sentinel says of its master.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    /// The greater, the newer.
    epoch: u64,
    address: Address,
    /// Sentinels of this master that it knows, itself included.
    sentinels: usize,
}

impl Sentinels {
    pub(super) fn new(settings: &config::Redis, connections: usize) -> Result<Self, String> {
        Ok(Self {
            addresses: Address::of_nodes(settings)?,
            master_name: settings.master_name.clone(),
            informants: Informants::new(Login::of_sentinels(settings)?, "none of the Sentinels in redis.nodes answers"),
            login: Login::of_redis(settings)?,
            connections,
            last: Mutex::default(),
            hears_most: AtomicBool::default(),
        })
    }

    /// The master of now. Those who ask while somebody does, or just did, get the same answer.
    pub(super) async fn master(&self) -> Result<Arc<RedisServer>, GateError> {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < RETRY_PAUSE
        {
            return answer.clone();
        }
        let known = last.as_ref().and_then(|(_, answer)| answer.as_ref().ok()).cloned();
        let answer = match self.ask().await {
            Ok(address) => match known.filter(|server| server.address == address) {
                Some(server) => Ok(server),
                None => RedisServer::new(address, &self.login, self.connections)
                    .map(Arc::new)
                    .map_err(GateError::Misconfigured),
            },
            Err(error) => Err(error),
        };
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    /// Asks all Sentinels where the master is. One that was cut off from the others may still name the old one: of their answers the one with
    /// the greatest epoch counts.
    async fn ask(&self) -> Result<Address, GateError> {
        let (whom, question) = (self.each_address().await, self.question());
        let told = self.informants.ask(&whom, &question, |sentinel, answer| {
            answer.map_err(|error| self.refusal(sentinel, error)).and_then(|fields| read(sentinel, &fields))
        });
        let told = told.await;
        let (answered, all) = told
            .as_ref()
            .map_or((0, 0), |told| (told.len(), told.iter().map(|told| told.sentinels).max().unwrap_or_default()));
        self.hears_most.store(answered * 2 > all.max(whom.len()), Ordering::Relaxed);
        let newest = told?.into_iter().max();
        newest.map(|told| told.address).ok_or_else(|| GateError::Unreachable("no Sentinel said anything".to_owned()))
    }

    /// A name may stand for several of them. Over TLS it is what their certificates are made out for, so it stays.
    async fn each_address(&self) -> Vec<Address> {
        let looking = self.addresses.iter().map(async |address| {
            let Address { host, port } = address;
            let found = match host.parse::<IpAddr>() {
                Err(_) if !self.login.is_encrypted() => {
                    let look = tokio::net::lookup_host((host.as_str(), *port));
                    tokio::time::timeout(LOOKED_UP_WITHIN, look).await.ok().and_then(Result::ok)
                }
                _ => None,
            };
            match found {
                Some(found) => found.map(|at| Address { host: at.ip().to_string(), port: at.port() }).collect(),
                None => vec![address.clone()],
            }
        });
        let each: BTreeSet<_> = futures_util::future::join_all(looking).await.into_iter().flatten().collect();
        each.into_iter().collect()
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
}

fn read(sentinel: &Address, fields: &HashMap<String, String>) -> Result<Told, GateError> {
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let address = Address::parse(&format!("{}:{}", field("ip"), field("port")));
    match (field("config-epoch").parse(), address) {
        (Ok(epoch), Some(address)) => {
            let others: usize = field("num-other-sentinels").parse().unwrap_or_default();
            Ok(Told { epoch, address, sentinels: others + 1 })
        }
        _ => Err(GateError::Unreachable(format!("the Sentinel {sentinel} says of its master {fields:?}"))),
    }
}
