//! Several Redis for one test: a cluster, or a master and a replica with Sentinels. The test may kill and freeze any of them.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use deadpool_redis::redis::{Cmd, FromRedisValue, InfoDict, RedisError, Value, cmd};
use seckill::config::{Config, RedisMode};
use secrecy::ExposeSecret;
use tokio::process::{Child, Command};

use crate::link;
use crate::process::{self, free_port};
use crate::support::eventually_within;

/// Milliseconds after which the others take a node for dead.
const NODE_TIMEOUT: &str = "1500";
/// What the Sentinels of a test call the master, and want to hear from who asks.
const MASTER: &str = "mymaster";
const SENTINEL_PASSWORD: &str = "only for Sentinels";
const START_WITHIN: u64 = 60;

/// A process that a client can talk to.
pub struct Node {
    pub port: u16,
    password: String,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Node {
    fn new(password: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("seckill-faults-{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir(&folder).unwrap();
        Self { port: free_port(), password: password.to_owned(), folder, arguments: Vec::new(), child: None }
    }

    /// A Redis that logs in to others with the password that it has itself.
    fn redis(password: &str, more: &[&str]) -> Self {
        let mut node = Self::new(password);
        let own = format!("--port {} --bind 127.0.0.1 --maxmemory-policy noeviction --appendonly no --save", node.port);
        node.arguments = own.split(' ').map(str::to_owned).collect();
        node.arguments.push(String::new());
        let of_folder = ["--dir", node.folder.to_str().unwrap(), "--repl-diskless-sync-delay", "0"];
        node.arguments.extend(of_folder.iter().chain(more).map(|word| (*word).to_owned()));
        if !password.is_empty() {
            let words = ["--requirepass", password, "--masterauth", password];
            node.arguments.extend(words.map(str::to_owned));
        }
        node
    }

    fn sentinel(master: &Node, quorum: usize) -> Self {
        let mut node = Self::new(SENTINEL_PASSWORD);
        let file = node.folder.join("sentinel.conf");
        let auth = match master.password.as_str() {
            "" => String::new(),
            password => format!("sentinel auth-pass {MASTER} \"{password}\"\n"),
        };
        let lines = format!(
            "port {}\nbind 127.0.0.1\nrequirepass \"{SENTINEL_PASSWORD}\"\nsentinel sentinel-pass \"{SENTINEL_PASSWORD}\"\n\
             sentinel monitor {MASTER} 127.0.0.1 {} {quorum}\n{auth}sentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 5000\n",
            node.port, master.port
        );
        fs::write(&file, lines).unwrap();
        node.arguments = vec![file.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
        node
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub async fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new("redis-server");
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.kill_on_drop(true).spawn().expect("redis-server"));
        eventually_within(START_WITHIN, "it answers", || async { self.try_ask::<Value>(&cmd("PING")).await.is_ok() })
            .await;
    }

    pub async fn kill(&mut self) {
        process::kill(&mut self.child.take().expect("it runs")).await;
    }

    pub async fn freeze(&self, time: Duration) {
        process::freeze(self.child.as_ref().expect("it runs"), time).await;
    }

    pub async fn try_ask<T: FromRedisValue>(&self, question: &Cmd) -> Result<T, RedisError> {
        let refused = || RedisError::from(std::io::Error::other("nobody lets us in"));
        let mut conn = link::redis_at(&self.address(), &self.password, 0).await.ok_or_else(refused)?;
        question.query_async(&mut conn).await
    }

    /// Asks with these words, which have no spaces.
    pub async fn ask<T: FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split(' ');
        let mut question = cmd(words.next().unwrap());
        question.arg(words.collect::<Vec<_>>());
        self.try_ask(&question).await.unwrap_or_else(|error| panic!("{question:?}: {error}"))
    }

    pub async fn is_master(&self) -> bool {
        let info: Result<InfoDict, _> = self.try_ask(cmd("INFO").arg("replication")).await;
        info.is_ok_and(|info| info.get::<String>("role").as_deref() == Some("master"))
    }

    async fn follows(&self) -> bool {
        let info: InfoDict = self.ask("INFO replication").await;
        info.get::<String>("master_link_status").as_deref() == Some("up")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A cluster of three masters, each with a replica.
pub struct RedisCluster {
    /// The masters of the beginning, then their replicas in the same order.
    pub nodes: Vec<Node>,
}

impl RedisCluster {
    const MASTERS: usize = 3;

    /// Starts it and makes `config` lead to it.
    pub async fn start(config: &mut Config) -> Self {
        let password = config.redis.password.expose_secret().to_owned();
        let mut nodes = Vec::new();
        for _ in 0..2 * Self::MASTERS {
            let bus = free_port().to_string();
            // One shard that is gone costs its own products alone; a replica may always be promoted.
            let words = format!(
                "--cluster-enabled yes --cluster-port {bus} --cluster-node-timeout {NODE_TIMEOUT} \
                 --cluster-require-full-coverage no --cluster-replica-validity-factor 0"
            );
            let mut node = Node::redis(&password, &words.split(' ').collect::<Vec<_>>());
            node.start().await;
            nodes.push((node, bus));
        }
        let first = nodes[0].0.port;
        for (number, (node, bus)) in nodes.iter().enumerate() {
            if number < Self::MASTERS {
                let (from, to) = (number * 16_384 / Self::MASTERS, (number + 1) * 16_384 / Self::MASTERS - 1);
                node.ask::<()>(&format!("CLUSTER ADDSLOTSRANGE {from} {to}")).await;
            }
            node.ask::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await;
            if node.port != first {
                nodes[0].0.ask::<()>(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port)).await;
            }
        }
        let cluster = Self { nodes: nodes.into_iter().map(|(node, _)| node).collect() };
        for node in &cluster.nodes {
            eventually_within(START_WITHIN, "all know each other", || async {
                let known: String = node.ask("CLUSTER NODES").await;
                let info: String = node.ask("CLUSTER INFO").await;
                known.lines().filter(|line| !line.contains("handshake")).count() == cluster.nodes.len()
                    && info.contains("cluster_state:ok")
            })
            .await;
        }
        for (master, replica) in cluster.nodes.iter().zip(&cluster.nodes[Self::MASTERS..]) {
            let id: String = master.ask("CLUSTER MYID").await;
            replica.ask::<()>(&format!("CLUSTER REPLICATE {id}")).await;
            eventually_within(START_WITHIN, "it follows", || replica.follows()).await;
        }
        config.redis.mode = RedisMode::Cluster;
        config.redis.db = 0;
        config.redis.nodes = cluster.nodes.iter().take(Self::MASTERS).map(Node::address).collect();
        cluster
    }

    /// The master of a product's slot, as most know it, by its number.
    pub async fn master_of(&self, product: i64) -> usize {
        let asked = self.nodes.iter().find(|node| node.child.is_some()).expect("one runs");
        let slot: i64 = asked.ask(&format!("CLUSTER KEYSLOT {{{product}}}")).await;
        let nodes: String = asked.ask("CLUSTER NODES").await;
        let has = |line: &&str| {
            line.contains("master") && !line.contains("fail") && line.split(' ').skip(8).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                matches!((first.parse::<i64>(), last.parse::<i64>()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
            })
        };
        let line = nodes.lines().find(has).unwrap_or_else(|| panic!("no master of slot {slot}: {nodes}"));
        let is_its = |node: &Node| line.contains(&format!(":{}@", node.port));
        self.nodes.iter().position(is_its).expect("one of ours")
    }

    /// Moves the slot of a product to another master, as an operator does who has added one. Where it is then.
    pub async fn move_slot_of(&self, product: i64) -> usize {
        let from = self.master_of(product).await;
        let to = (from + 1) % Self::MASTERS;
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let slot: i64 = source.ask(&format!("CLUSTER KEYSLOT {{{product}}}")).await;
        let (source_id, target_id): (String, String) =
            (source.ask("CLUSTER MYID").await, target.ask("CLUSTER MYID").await);
        target.ask::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {source_id}")).await;
        source.ask::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {target_id}")).await;
        loop {
            // One at a time, so that a step may find some of its keys here and some there.
            let keys: Vec<String> = source.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 1")).await;
            let Some(key) = keys.first() else { break };
            let mut migrate = cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(target.port).arg(key).arg(0).arg(5_000);
            if !source.password.is_empty() {
                migrate.arg("AUTH").arg(&source.password);
            }
            source.try_ask::<Value>(&migrate).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for node in [target, source] {
            node.ask::<()>(&format!("CLUSTER SETSLOT {slot} NODE {target_id}")).await;
        }
        to
    }
}

/// A master, its replica, and those who watch them.
pub struct WatchedRedis {
    pub nodes: [Node; 2],
    pub sentinels: Vec<Node>,
}

impl WatchedRedis {
    /// Starts them, with Sentinels of which `quorum` must agree, and makes `config` lead to them.
    pub async fn start(config: &mut Config, sentinels: usize, quorum: usize) -> Self {
        let password = config.redis.password.expose_secret().to_owned();
        let mut nodes = [Node::redis(&password, &[]), Node::redis(&password, &[])];
        for node in &mut nodes {
            node.start().await;
        }
        let [master, replica] = &nodes;
        replica.ask::<()>(&format!("REPLICAOF 127.0.0.1 {}", master.port)).await;
        eventually_within(START_WITHIN, "it follows", || replica.follows()).await;
        let mut watching = Vec::new();
        for _ in 0..sentinels {
            let mut sentinel = Node::sentinel(master, quorum);
            sentinel.start().await;
            watching.push(sentinel);
        }
        for sentinel in &watching {
            eventually_within(START_WITHIN, "Sentinels know each other and the replica", || async {
                let known: std::collections::HashMap<String, String> =
                    sentinel.ask(&format!("SENTINEL MASTER {MASTER}")).await;
                known["num-other-sentinels"] == (sentinels - 1).to_string() && known["num-slaves"] == "1"
            })
            .await;
        }
        config.redis.mode = RedisMode::Sentinel;
        config.redis.db = 0;
        config.redis.master_name = MASTER.to_owned();
        config.redis.sentinel_password = SENTINEL_PASSWORD.into();
        config.redis.nodes = watching.iter().map(Node::address).collect();
        Self { nodes, sentinels: watching }
    }

    /// Which of both takes writes.
    pub async fn master(&self) -> usize {
        for (number, node) in self.nodes.iter().enumerate() {
            if node.child.is_some() && node.is_master().await {
                return number;
            }
        }
        panic!("no master")
    }
}
