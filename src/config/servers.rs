//! The three servers of the distributed backend: where they are, and how one connects.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use url::Url;

use super::schema::{Config, list};
use crate::tls::{Keys, Trust};

/// Ports of RabbitMQ for who names none.
const AMQP: u16 = 5672;
const AMQP_OVER_TLS: u16 = 5671;
/// Port of MySQL for who names none.
const MYSQL: u16 = 3306;

const MYSQL_KEYS: Keys = Keys { tls: "mysql.tls", ca_file: "mysql.tls_ca_file", address: "mysql.dsn" };
const REDIS_KEYS: Keys = Keys { tls: "redis.tls", ca_file: "redis.tls_ca_file", address: "redis.addr" };
const RABBITMQ_KEYS: Keys = Keys { tls: "rabbitmq.tls", ca_file: "rabbitmq.tls_ca_file", address: "rabbitmq.url" };

/// `mysql`: the database.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MySql {
    /// `mysql://user:password@host:port/database`; several servers: `host:port,host:port`.
    pub dsn: SecretString,
    /// Connections at most.
    pub pool_size: usize,
    /// Whether they are encrypted.
    pub tls: Tls,
    /// Whom to trust; empty: whom this system trusts.
    pub tls_ca_file: PathBuf,
}

/// `redis`: the gate's store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Whether it is alone, or how the one that has a gate is found.
    pub mode: RedisMode,
    /// `host:port`, where it is alone.
    pub addr: String,
    /// `host:port` of each Sentinel, or of some nodes of the cluster.
    #[serde(deserialize_with = "list")]
    pub nodes: Vec<String>,
    /// What the Sentinels call the master.
    pub master_name: String,
    /// User of the Sentinels' ACL; empty: their default user.
    pub sentinel_username: String,
    /// Empty: no `AUTH` to Sentinels.
    pub sentinel_password: SecretString,
    /// User of Redis' ACL; empty: its default user.
    pub username: String,
    /// Empty: no `AUTH`.
    pub password: SecretString,
    /// What the names of all our keys begin with.
    pub key_prefix: String,
    /// Logical database.
    pub db: u16,
    /// Connections at most.
    pub pool_size: usize,
    /// Whether they are encrypted.
    pub tls: Tls,
    /// Whom to trust; empty: whom this system trusts.
    pub tls_ca_file: PathBuf,
}

/// `rabbitmq`: the queue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitMq {
    /// `amqp://user:password@host:port/vhost`; several nodes: `host:port,host:port`.
    pub url: SecretString,
    /// Name of the queue of accepted purchases.
    pub queue: String,
    /// Consumer tasks.
    pub consumers: usize,
    /// Whether connections are encrypted.
    pub tls: Tls,
    /// Whom to trust; empty: whom this system trusts.
    pub tls_ca_file: PathBuf,
}

/// Where a deployment's gates are.
pub struct RedisPlace {
    /// Address, database and key prefix, for people and to be compared.
    pub name: String,
    /// The setting of the address.
    pub key: &'static str,
}

/// `redis.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisMode {
    /// It is alone.
    Single,
    /// Sentinels say which is the master.
    Sentinel,
    /// A Redis Cluster.
    Cluster,
}

words!(RedisMode { "single" => RedisMode::Single, "sentinel" => RedisMode::Sentinel, "cluster" => RedisMode::Cluster });

/// `tls` of a server: whether connections to it are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// They are not.
    Off,
    /// They are, and the server must show a certificate for its name.
    Verify,
}

words!(Tls { "off" => Tls::Off, "verify" => Tls::Verify });

impl Tls {
    fn trust(self, keys: Keys, ca_file: &Path) -> Result<Option<Arc<Trust>>, String> {
        match self {
            Self::Off => Ok(None),
            Self::Verify => Trust::load(keys, ca_file).map(Arc::new).map(Some),
        }
    }
}

impl MySql {
    /// Whom to trust, if connections are encrypted. Reads `tls_ca_file`.
    pub fn trust(&self) -> Result<Option<Arc<Trust>>, String> {
        self.tls.trust(MYSQL_KEYS, &self.tls_ca_file)
    }

    /// The servers that `dsn` names.
    pub fn servers(&self) -> Result<Vec<Url>, url::ParseError> {
        each_server(self.dsn.expose_secret())
    }
}

impl Redis {
    /// Whom to trust, if connections are encrypted. Reads `tls_ca_file`.
    pub fn trust(&self) -> Result<Option<Arc<Trust>>, String> {
        self.tls.trust(REDIS_KEYS, &self.tls_ca_file)
    }

    /// Where the gates are.
    pub fn place(&self) -> RedisPlace {
        RedisPlace {
            name: format!("{}/{}/{}", self.address(), self.db, self.key_prefix),
            key: if self.mode == RedisMode::Single { "redis.addr" } else { "redis.nodes" },
        }
    }

    /// Where it is, for people and to be compared. The order in which nodes are named says nothing.
    fn address(&self) -> String {
        let mut nodes = self.nodes.clone();
        nodes.sort_unstable();
        match self.mode {
            RedisMode::Single => self.addr.clone(),
            RedisMode::Sentinel => format!("{}@{}", self.master_name, nodes.join(",")),
            RedisMode::Cluster => nodes.join(","),
        }
    }
}

impl RabbitMq {
    /// Whom to trust, if connections are encrypted. Reads `tls_ca_file`.
    pub fn trust(&self) -> Result<Option<Arc<Trust>>, String> {
        self.tls.trust(RABBITMQ_KEYS, &self.tls_ca_file)
    }

    /// The nodes that `url` names.
    pub fn nodes(&self) -> Result<Vec<Url>, url::ParseError> {
        each_server(self.url.expose_secret())
    }

    /// The port of a node that `url` names without one.
    pub fn default_port(&self) -> u16 {
        match self.tls {
            Tls::Off => AMQP,
            Tls::Verify => AMQP_OVER_TLS,
        }
    }
}

impl Config {
    /// Where the servers of the distributed backend are: MySQL, Redis, RabbitMQ. No secrets.
    pub fn servers(&self) -> (String, String, String) {
        let redis = format!("{}/{} {}*", self.redis.address(), self.redis.db, self.redis.key_prefix);
        let rabbitmq = place(self.rabbitmq.nodes(), self.rabbitmq.default_port());
        let secured = |place: String, tls| if tls == Tls::Off { place } else { format!("{place} (TLS)") };
        (
            secured(place(self.mysql.servers(), MYSQL), self.mysql.tls),
            secured(redis, self.redis.tls),
            secured(format!("{rabbitmq} {}", self.rabbitmq.queue), self.rabbitmq.tls),
        )
    }
}

/// A URL for each server of one that may name several, `scheme://user:password@host:port,host:port/path`, which no library
/// reads.
fn each_server(text: &str) -> Result<Vec<Url>, url::ParseError> {
    let after_scheme = text.find("://").map_or(0, |at| at + 3);
    let end = text[after_scheme..].find(['/', '?', '#']).map_or(text.len(), |at| after_scheme + at);
    let hosts = text[after_scheme..end].rfind('@').map_or(after_scheme, |at| after_scheme + at + 1);
    let (before, after) = (&text[..hosts], &text[end..]);
    text[hosts..end].split(',').map(|host| Url::parse(&format!("{before}{}{after}", host.trim()))).collect()
}

/// Hosts, ports and path, for people.
fn place(servers: Result<Vec<Url>, url::ParseError>, port: u16) -> String {
    let servers = servers.unwrap_or_default();
    let host = |url: &Url| format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(port));
    let hosts = servers.iter().map(host).collect::<Vec<_>>().join(",");
    format!("{hosts}{}", servers.first().map_or("", Url::path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_name_several_servers() {
        for (text, urls) in [
            ("mysql://u:p@h:1/d", &["mysql://u:p@h:1/d"][..]),
            ("mysql://u:p@a:1,b:2/d?x=1,2", &["mysql://u:p@a:1/d?x=1,2", "mysql://u:p@b:2/d?x=1,2"]),
            ("amqp://u:p,q%40r@a, [::1]:2/%2f", &["amqp://u:p,q%40r@a/%2f", "amqp://u:p,q%40r@[::1]:2/%2f"]),
            ("amqp://a,b", &["amqp://a", "amqp://b"]),
        ] {
            let read: Vec<String> = each_server(text).unwrap().iter().map(Url::to_string).collect();
            assert_eq!(read, urls, "{text}");
        }
        for bad in ["", "a,b", "mysql://u:p@a:x,b/d"] {
            assert!(each_server(bad).is_err(), "{bad}");
        }
    }

    /// Guards against: `off` that YAML takes for false, as its older versions do.
    #[test]
    fn tls_is_off_or_verify() {
        let read = |yaml: &str| {
            let source = config::File::from_str(yaml, config::FileFormat::Yaml);
            config::Config::builder().add_source(source).build().unwrap().get::<Tls>("tls")
        };
        assert_eq!(read("tls: off").unwrap(), Tls::Off);
        assert_eq!(read("tls: verify").unwrap(), Tls::Verify);
        for bad in ["tls: on", "tls: true", "tls: require"] {
            assert!(read(bad).unwrap_err().to_string().contains("must be off or verify"), "{bad}");
        }
    }

    #[test]
    fn a_place_names_all_servers_and_no_secret() {
        assert_eq!(place(each_server("mysql://u:p@a,b:2/d"), 3306), "a:3306,b:2/d");
    }
}
