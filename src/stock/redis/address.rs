//! Where a Redis is, how one logs in there, and why it did not work.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::io::tcp::TcpSettings;
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisError, TlsCertificates,
};
use deadpool_redis::{Manager, Pool, PoolError, Runtime};
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::failure::sort_connect;
use crate::config;
use crate::stock::types::GateError;
use crate::tls::{self, Trust};

/// To open a connection, and to wait for one from the pool.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For one answer. A step that times out may still have been done.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    /// An IPv6 address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Reads `host:port`, as it is configured, or said by a node; what follows the last colon is the port.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: tls::bare(host).to_owned(), port: port.parse().ok()? })
    }

    /// That in `redis.addr`.
    pub(super) fn of_addr(settings: &config::Redis) -> Result<Self, String> {
        Self::parse(&settings.addr).ok_or_else(|| "redis.addr: must be host:port".to_owned())
    }

    /// Those in `redis.nodes`.
    pub(super) fn of_nodes(settings: &config::Redis) -> Result<Vec<Self>, String> {
        let address =
            |node: &String| Self::parse(node).ok_or_else(|| format!("redis.nodes: {node}: must be host:port"));
        settings.nodes.iter().map(address).collect()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// How one logs in.
#[derive(Clone)]
pub(super) struct Login {
    user: RedisConnectionInfo,
    trust: Option<Arc<Trust>>,
}

impl Login {
    /// To Redis itself.
    pub(super) fn of_redis(settings: &config::Redis) -> Result<Self, String> {
        let config::Redis { username, password, .. } = settings;
        Ok(Self { user: user(username, password.expose_secret()), trust: settings.trust()? })
    }

    /// To the Sentinels that know where it is.
    pub(super) fn of_sentinels(settings: &config::Redis) -> Result<Self, String> {
        let config::Redis { sentinel_username, sentinel_password, .. } = settings;
        Ok(Self { user: user(sentinel_username, sentinel_password.expose_secret()), trust: settings.trust()? })
    }

    /// Whether connections are encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.trust.is_some()
    }

    /// What an error of a connection to this address means that does not stand yet.
    pub(super) async fn failed(&self, address: &Address, error: RedisError) -> GateError {
        explain(address, self.trust.as_deref(), &PoolError::Backend(error)).await
    }

    /// What the library needs to connect. It chooses no database: the library would not say why Redis refuses one.
    pub(super) fn at(&self, address: &Address) -> Result<ConnectionInfo, String> {
        let scheme = if self.trust.is_some() { "rediss" } else { "redis" };
        let info = format!("{scheme}://{address}").into_connection_info();
        let info = info.map_err(|error: RedisError| format!("{address}: {error}"))?;
        // Many share a connection: a call must not wait until the answers of those before have come.
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = info.set_redis_settings(self.user.clone()).set_tcp_settings(tcp);
        let Some(trust) = &self.trust else { return Ok(info) };
        let roots = TlsCertificates { client_tls: None, root_cert: Some(trust.pem()) };
        let client = Client::build_with_tls(info, roots).map_err(|error| format!("redis.tls: {error}"))?;
        Ok(client.get_connection_info().clone())
    }
}

fn user(name: &str, password: &str) -> RedisConnectionInfo {
    let mut user = RedisConnectionInfo::default();
    if !password.is_empty() {
        user = user.set_password(password);
    }
    if !name.is_empty() {
        user = user.set_username(name);
    }
    user
}

/// Timeouts of every connection.
pub(super) fn timeouts() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
}

/// A Redis that may keep gates, and the connections to it.
pub(super) struct RedisServer {
    pub(super) address: Address,
    pub(super) pool: Pool,
    trust: Option<Arc<Trust>>,
}

impl RedisServer {
    /// At most `connections` to it.
    pub(super) fn new(address: Address, login: &Login, connections: usize) -> Result<Self, String> {
        let manager = Manager::new_with_config(login.at(&address)?, timeouts());
        let pool = Pool::builder(manager.map_err(|error| format!("redis: {error}"))?)
            .max_size(connections)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| format!("redis: {error}"))?;
        Ok(Self { address, pool, trust: login.trust.clone() })
    }

    /// What an error of a connection that does not stand yet means.
    pub(super) async fn failed(&self, error: &PoolError) -> GateError {
        explain(&self.address, self.trust.as_deref(), error).await
    }
}

/// What an error of a connection to this address means that does not stand yet.
async fn explain(address: &Address, trust: Option<&Trust>, error: &PoolError) -> GateError {
    let sorted = sort_connect(error);
    let GateError::Unreachable(problem) = sorted else { return sorted };
    let (host, port) = (address.host.as_str(), address.port);
    let broke = |error: &RedisError| !error.is_connection_refusal() && !error.is_timeout();
    let hung_up = matches!(error, PoolError::Backend(error) if broke(error));
    let of_tls = match trust {
        Some(trust) => match tokio::join!(trust.why_refused(host, port), answers_without_tls(host, port)) {
            (Some(problem), _) => Some(problem),
            (None, true) => Some(trust.does_not_speak_tls(host, port)),
            // Without an answer nobody knows whether the other side understands TLS.
            (None, false) => return GateError::Unreachable(format!("{problem}, over TLS, as redis.tls says")),
        },
        None if hung_up && tls::speaks_tls(host, port).await => {
            Some(format!("redis.tls: {host}:{port} wants TLS: set redis.tls: verify"))
        }
        None => None,
    };
    let unreachable = || GateError::Unreachable(format!("{host}:{port}: {problem}"));
    of_tls.map_or_else(unreachable, GateError::Misconfigured)
}

/// Whether it is Redis without TLS, which would wait for ever for the end of a line in what a handshake begins with.
async fn answers_without_tls(host: &str, port: u16) -> bool {
    let asking = async {
        let mut stream = TcpStream::connect((tls::bare(host), port)).await?;
        stream.write_all(b"PING\r\n").await?;
        stream.read_u8().await
    };
    // A pong, or an error.
    matches!(tokio::time::timeout(RESPONSE_TIMEOUT, asking).await, Ok(Ok(b'+' | b'-')))
}

/// For those who connect by themselves to a Redis that is alone. It chooses no database.
pub fn redis_address(settings: &config::Redis) -> Result<ConnectionInfo, String> {
    Login::of_redis(settings)?.at(&Address::of_addr(settings)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for (text, host, written) in [
            ("redis:6379", "redis", "redis:6379"),
            ("10.0.0.1:6379", "10.0.0.1", "10.0.0.1:6379"),
            ("[::1]:6379", "::1", "[::1]:6379"),
            ("fd00::1:6379", "fd00::1", "[fd00::1]:6379"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.host.as_str(), address.to_string().as_str()), (host, written));
        }
        for bad in ["redis", "redis:", "redis:66000", ""] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
