//! What both connections to the broker have in common: how one logs in, what must be there, how a failure is noticed.

use std::sync::Arc;
use std::time::Duration;

use amqprs::callbacks::ConnectionCallback;
use amqprs::channel::{Channel, QueueDeclareArguments};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::error::Error as AmqpError;
use amqprs::{Close, FieldTable, FieldValue};
use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::failure::Failure;
use super::identity::Identity;
use super::login::{self, Login};
use super::problem::Problem;

/// To open a connection, its channel and its queues.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Seconds; a frozen broker is given up after two.
const HEARTBEAT_SECONDS: u16 = 5;
/// The library's own notice of a failure can be missed, so its flag is looked at too.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Messages in each queue at most; the broker refuses more.
const QUEUE_MAX_MESSAGES: i64 = 500_000;

/// Where the queues are.
#[derive(Clone)]
pub(super) struct Place {
    login: Login,
    pub(super) orders: String,
    pub(super) dead: String,
    pub(super) identity: Arc<Identity>,
}

impl Place {
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

    /// Logs in; `name` is what the broker's own pages call the connection.
    pub(super) async fn connect(&self, name: &str) -> Result<Connection, Problem> {
        let Login { host, port, user, password, vhost } = &self.login;
        let mut arguments = OpenConnectionArguments::new(host, *port, user, password);
        arguments.virtual_host(vhost).heartbeat(HEARTBEAT_SECONDS).connection_name(name);
        match tokio::time::timeout(OPEN_TIMEOUT, Connection::open(&arguments)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(login::refusal(&self.login).await.unwrap_or_else(|| error.into())),
            Err(_) => Err(no_answer()),
        }
    }
}

pub(super) fn no_answer() -> Problem {
    Problem::unreachable(format!("no answer within {OPEN_TIMEOUT:?}"))
}

/// Waits for what is done to open a link. The broker's own words, when there are any, say more than the library's.
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
        true => Problem::unreachable("the connection broke"),
        false => Problem::unreachable("closed by the broker"),
    }
}

/// Makes both queues, unless they are there.
pub(super) async fn declare_queues(connection: &Connection, channel: &Channel, place: &Place) -> Result<(), AmqpError> {
    let mut arguments = queue_arguments(connection);
    channel.queue_declare(durable_queue(&place.dead, arguments.clone())).await?;
    if let Ok(key) = "x-single-active-consumer".try_into() {
        arguments.insert(key, true.into());
    }
    channel.queue_declare(durable_queue(&place.orders, arguments)).await?;
    Ok(())
}

pub(super) fn durable_queue(name: &str, arguments: FieldTable) -> QueueDeclareArguments {
    QueueDeclareArguments::durable_client_named(name).arguments(arguments).finish()
}

/// What all our queues are declared with.
pub(super) fn queue_arguments(connection: &Connection) -> FieldTable {
    let mut arguments = FieldTable::new();
    let mut set = |key: &str, value: FieldValue| {
        if let Ok(key) = key.try_into() {
            arguments.insert(key, value);
        }
    };
    set("x-queue-type", "quorum".into());
    set("x-overflow", "reject-publish".into());
    set("x-max-length", FieldValue::l(QUEUE_MAX_MESSAGES));
    // From RabbitMQ 4 on a message is dropped after 20 returns unless told otherwise; older ones do not know -1.
    let version = connection.server_properties().version();
    if version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 4) {
        set("x-delivery-limit", FieldValue::l(-1));
    }
    arguments
}

/// Notes why the broker closes a connection.
pub(super) struct OnConnection(pub(super) Failure);

#[async_trait]
impl ConnectionCallback for OnConnection {
    async fn close(&mut self, _: &Connection, close: Close) -> Result<(), AmqpError> {
        self.0.report(Problem::from(&close));
        Ok(())
    }

    // The library does not announce that it understands these two, so the broker does not send them: a blocked broker
    // shows by confirms that do not come.
    async fn blocked(&mut self, _: &Connection, _: String) {}

    async fn unblocked(&mut self, _: &Connection) {}

    async fn secret_updated(&mut self, _: &Connection) {}
}
