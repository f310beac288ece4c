//! What all connections to the broker have in common: where it is, how one logs in, how long one waits, how one closes.

use std::sync::Arc;
use std::time::Duration;

use amqprs::channel::Channel;
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::error::Error as AmqpError;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::failure::Failure;
use super::identity::Identity;
use super::login::{self, Login};
use super::problem::Problem;

/// To open a connection, its channel and its queues.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Seconds; a frozen broker is given up after two heartbeats that did not come.
const HEARTBEAT_SECONDS: u16 = 5;
/// The library's own notice of a failure can be missed, so its flag is looked at too.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Where the queues are: the broker and how one logs in there, and their names.
#[derive(Clone)]
pub(super) struct QueueAddress {
    login: Login,
    pub(super) orders: String,
    pub(super) dead: String,
    pub(super) identity: Arc<Identity>,
}

impl QueueAddress {
    /// Reads the connection's address. The default vhost is `%2f` or nothing.
    pub(super) fn new(url: &SecretString, queue: &str) -> Result<Self, String> {
        let parsed = Url::parse(url.expose_secret()).map_err(|error| format!("rabbitmq.url: {error}"))?;
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| "rabbitmq.url: not UTF-8".to_owned())
        };
        let vhost = decode(parsed.path().strip_prefix('/').unwrap_or_default())?;
        let login = Login {
            host: parsed.host_str().unwrap_or("localhost").to_owned(),
            port: parsed.port().unwrap_or(5672),
            user: decode(parsed.username())?,
            password: decode(parsed.password().unwrap_or_default())?,
            vhost: if vhost.is_empty() { "/".to_owned() } else { vhost },
        };
        Ok(Self { login, orders: queue.to_owned(), dead: format!("{queue}.dead"), identity: Arc::default() })
    }

    /// Where the queue is, for people: `host:port/vhost/queue`.
    pub(super) fn name(&self) -> String {
        let Login { host, port, vhost, .. } = &self.login;
        format!("{host}:{port}/{}/{}", if vhost == "/" { "%2f" } else { vhost }, self.orders)
    }

    /// Reads over a connection of its own whose queue this is; `take`: it is ours from now on.
    pub(super) async fn check_identity(&self, take: bool) -> Result<(), Problem> {
        let connection = self.connect("seckill start").await?;
        let checking = async {
            if take {
                return self.identity.take(&connection, &self.orders).await;
            }
            self.identity.check(&connection, &self.orders, true).await
        };
        // It has let us in, and then takes no message.
        let checked = tokio::time::timeout(OPEN_TIMEOUT, checking).await.unwrap_or_else(|_| Err(Problem::blocked()));
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close()).await;
        checked
    }

    /// Reads over a connection that is to be used whose queue this is, and, if `may_write`, says that it is ours if it is nobody's.
    pub(super) async fn check_identity_on(&self, connection: &Connection, may_write: bool) -> Result<(), Problem> {
        // The library waits for ever for a broker that sends heartbeats and answers nothing.
        let checking = self.identity.check(connection, &self.orders, may_write);
        tokio::time::timeout(OPEN_TIMEOUT, checking).await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// Logs in; `name` is what the broker's own pages call the connection.
    pub(super) async fn connect(&self, name: &str) -> Result<Connection, Problem> {
        let Login { host, port, user, password, vhost } = &self.login;
        let mut arguments = OpenConnectionArguments::new(host, *port, user, password);
        arguments.virtual_host(vhost).heartbeat(HEARTBEAT_SECONDS).connection_name(name);
        match tokio::time::timeout(OPEN_TIMEOUT, Connection::open(&arguments)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                let unreachable = || Problem::unreachable(format!("cannot connect to {host}:{port}: {error}"));
                Err(login::refusal(&self.login).await.unwrap_or_else(unreachable))
            }
            Err(_) => Err(Problem::unreachable(format!("{host}:{port} gives no answer within {OPEN_TIMEOUT:?}"))),
        }
    }
}

fn no_answer() -> Problem {
    Problem::unreachable(format!("no answer within {OPEN_TIMEOUT:?}"))
}

/// Waits for what is done to open a connection. The broker's own words, when there are any, say more than the library's.
pub(super) async fn opened<T>(
    failure: &Failure,
    opening: impl Future<Output = Result<T, AmqpError>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => Err(failure.problem().unwrap_or_else(|| error.into())),
        Err(_) => Err(failure.problem().unwrap_or_else(no_answer)),
    }
}

/// Closes a channel, which gives back what was delivered on it and not acknowledged, then its connection.
pub(super) async fn close(channel: Channel, connection: Connection) {
    let closing = async {
        let _ = channel.close().await;
        let _ = connection.close().await;
    };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
}

/// Waits until the connection breaks.
pub(super) async fn broken(connection: &Connection) -> Problem {
    match connection.listen_network_io_failure().await {
        true => Problem::broken_link("the connection broke"),
        false => Problem::broken_link("the broker closed the connection"),
    }
}
