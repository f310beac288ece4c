//! What all connections to the broker have in common: where it is, how one logs in, how long one waits, how one closes.

use std::sync::Arc;
use std::time::Duration;

use amqprs::channel::Channel;
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::error::Error as AmqpError;
use amqprs::tls::TlsAdaptor;

use super::failure::Failure;
use super::identity::Identity;
use super::login::{self, Login};
use super::nodes::Nodes;
use super::problem::BrokerProblem;
use crate::{config, tls};

/// To open a connection, its channel and its queues.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Seconds; a frozen broker is given up after two heartbeats that did not come.
const HEARTBEAT_SECONDS: u16 = 5;
/// From one look at a connection, and at what it owes us, to the next.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Where the queues are: the broker and how one logs in there, and their names.
#[derive(Clone)]
pub(super) struct QueueAddress {
    nodes: Arc<Nodes>,
    pub(super) orders: String,
    pub(super) dead: String,
    pub(super) identity: Arc<Identity>,
}

impl QueueAddress {
    pub(super) fn new(settings: &config::RabbitMq) -> Result<Self, String> {
        let (nodes, orders) = (Arc::new(Nodes::new(settings)?), settings.queue.clone());
        Ok(Self { nodes, dead: format!("{orders}.dead"), orders, identity: Arc::default() })
    }

    /// Where the queue is, for people: `host:port/vhost/queue`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.nodes.place(), self.orders)
    }

    /// Reads over a connection of its own whose queue this is; `take`: it is ours from now on.
    pub(super) async fn check_identity(&self, take: bool) -> Result<(), BrokerProblem> {
        let connection = self.connect("seckill start").await?;
        let checking = async {
            if take {
                return self.identity.take(&connection, &self.orders).await;
            }
            self.identity.check(&connection, &self.orders, true).await
        };
        // It has let us in, and then takes no message.
        let checked =
            tokio::time::timeout(OPEN_TIMEOUT, checking).await.unwrap_or_else(|_| Err(BrokerProblem::blocked()));
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close()).await;
        checked
    }

    /// Reads over a connection that is to be used whose queue this is, and, if `may_write`, says that it is ours if it is nobody's.
    pub(super) async fn check_identity_on(
        &self,
        connection: &Connection,
        may_write: bool,
    ) -> Result<(), BrokerProblem> {
        // The library waits for ever for a broker that sends heartbeats and answers nothing.
        let checking = self.identity.check(connection, &self.orders, may_write);
        tokio::time::timeout(OPEN_TIMEOUT, checking).await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// Logs in, at the first node that lets us; `name` is what the broker's own pages call the connection.
    pub(super) async fn connect(&self, name: &'static str) -> Result<Connection, BrokerProblem> {
        let mut problems = Vec::new();
        for (node, login) in self.nodes.in_turn(name) {
            match open(login, name).await {
                Ok(connection) => {
                    self.nodes.reached(name, node);
                    return Ok(connection);
                }
                Err(problem) => problems.push(problem),
            }
        }
        Err(BrokerProblem::of_all(problems))
    }
}

async fn open(login: &Login, name: &str) -> Result<Connection, BrokerProblem> {
    let Login { host, port, user, password, vhost, trust } = login;
    let mut arguments = OpenConnectionArguments::new(host, *port, user, password);
    arguments.virtual_host(vhost).heartbeat(HEARTBEAT_SECONDS).connection_name(name);
    if let Some(trust) = trust {
        arguments.tls_adaptor(TlsAdaptor::new(trust.connector(), tls::bare(host).to_owned()));
    }
    match tokio::time::timeout(OPEN_TIMEOUT, Connection::open(&arguments)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            let unreachable = || BrokerProblem::unreachable(format!("cannot connect to {}: {error}", login.server()));
            Err(login::refusal(login).await.unwrap_or_else(unreachable))
        }
        Err(_) => {
            let over_tls = if trust.is_some() { ", over TLS, as rabbitmq.tls says" } else { "" };
            let server = login.server();
            Err(BrokerProblem::unreachable(format!("{server} gives no answer within {OPEN_TIMEOUT:?}{over_tls}")))
        }
    }
}

/// A connection for those who use no queue of ours.
pub async fn connect_rabbitmq(settings: &config::RabbitMq, name: &'static str) -> Result<Connection, String> {
    QueueAddress::new(settings)?.connect(name).await.map_err(|problem| problem.text)
}

fn no_answer() -> BrokerProblem {
    BrokerProblem::unreachable(format!("no answer within {OPEN_TIMEOUT:?}"))
}

/// Waits for what is done to open a connection. The broker's own words, when there are any, say more than the library's.
pub(super) async fn opened<T>(
    failure: &Failure,
    opening: impl Future<Output = Result<T, AmqpError>>,
) -> Result<T, BrokerProblem> {
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

/// Waits until the connection or the channel is gone. amqprs announces a break once, and only to those who wait for it at that moment; so
/// this also asks now and then whether both are still open.
pub(super) async fn gone(connection: &Connection, channel: &Channel) -> BrokerProblem {
    let closed = async {
        while connection.is_open() && channel.is_open() {
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    };
    let why = tokio::select! {
        is_broken = connection.listen_network_io_failure() => match is_broken {
            true => "the connection broke",
            false => "the broker closed the connection",
        },
        () = closed => "the connection is closed",
    };
    BrokerProblem::broken_link(why)
}
