//! Whose queue this is. Beside it lies another queue, `<queue>.deployment`, with one message: the id of the deployment, and a
//! random id of the queue itself, another one when the broker has lost its data or is another broker. An instance that
//! reaches another queue than the others notices that before it publishes anything.

use std::time::Duration;

use amqprs::channel::{
    BasicAckArguments, BasicGetArguments, BasicNackArguments, BasicPublishArguments, Channel, ConfirmSelectArguments,
    QueueDeclareArguments, QueuePurgeArguments,
};
use amqprs::connection::Connection;
use amqprs::{BasicProperties, FieldTable};
use parking_lot::Mutex;
use uuid::Uuid;

use super::failure::{Failure, OnChannel};
use super::problem::{BrokerProblem, Trouble};
use super::topology::{durable_queue, queue_arguments};

/// Another instance may hold the message for a moment, to read it.
const LOOKS: u32 = 40;
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// The deployment that a queue must belong to, and what was found in it last.
#[derive(Default)]
pub(super) struct Identity {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    deployment: Option<String>,
    queue: Option<String>,
}

impl Identity {
    /// From now on only a queue of this deployment is used.
    pub(super) fn expect(&self, deployment: &str) {
        self.state.lock().deployment = Some(deployment.to_owned());
    }

    /// The queue's own id, as it was read last.
    pub(super) fn queue(&self) -> Option<String> {
        self.state.lock().queue.clone()
    }

    /// Says that the queue is ours, whoever had it before.
    pub(super) async fn take(&self, connection: &Connection, queue: &str) -> Result<(), BrokerProblem> {
        let channel = connection.open_channel(None).await?;
        let name = format!("{queue}.deployment");
        channel.queue_declare(durable_queue(&name, queue_arguments(connection))).await?;
        channel.queue_purge(QueuePurgeArguments::new(&name)).await?;
        self.check(connection, queue, true).await
    }

    /// Reads whose queue this is, and, if `may_write`, says that it is ours if it is nobody's.
    pub(super) async fn check(
        &self,
        connection: &Connection,
        queue: &str,
        may_write: bool,
    ) -> Result<(), BrokerProblem> {
        let Some(ours) = self.state.lock().deployment.clone() else {
            return Ok(());
        };
        let body = read_or_write(connection, queue, &ours, may_write).await?;
        let (deployment, id) = body.split_once(' ').ok_or_else(|| foreign(queue))?;
        if deployment != ours {
            return Err(foreign(queue));
        }
        self.state.lock().queue = Some(id.to_owned());
        Ok(())
    }
}

fn foreign(queue: &str) -> BrokerProblem {
    let text = format!(
        "rabbitmq.queue: the queue {queue} belongs to another deployment; choose another name, or, if its \
         database is gone: seckill deployment adopt --take"
    );
    BrokerProblem::new(Trouble::Misconfigured, text)
}

async fn read_or_write(
    connection: &Connection,
    queue: &str,
    deployment: &str,
    may_write: bool,
) -> Result<String, BrokerProblem> {
    let name = format!("{queue}.deployment");
    let new = !exists(connection, &name).await?;
    let failure = Failure::default();
    let channel = connection.open_channel(None).await?;
    channel.register_callback(OnChannel(failure.clone())).await?;
    let arguments = queue_arguments(connection);
    let found = read_or_write_on(&channel, &name, arguments, deployment, may_write, new).await;
    let _ = channel.close().await;
    // The broker's own words, when there are any, say more.
    found.map_err(|problem| failure.problem().unwrap_or(problem))
}

async fn read_or_write_on(
    channel: &Channel,
    name: &str,
    arguments: FieldTable,
    deployment: &str,
    may_write: bool,
    mut new: bool,
) -> Result<String, BrokerProblem> {
    channel.confirm_select(ConfirmSelectArguments::default()).await?;
    channel.queue_declare(durable_queue(name, arguments)).await?;
    let mut found = Err(BrokerProblem::unreachable(format!(
        "{name}: no message says yet whose queue this is; whoever may publish writes it"
    )));
    for looks in 1..=LOOKS {
        if let Some(body) = look(channel, name).await? {
            found = Ok(body);
            break;
        }
        // Without its message for so long: what made the queue has died before it wrote.
        if may_write && (new || looks == LOOKS / 2) {
            new = false;
            let body = format!("{deployment} {}", Uuid::new_v4());
            let properties = BasicProperties::default().with_persistence(true).finish();
            let target = BasicPublishArguments::new("", name).finish();
            channel.basic_publish(properties, body.into_bytes(), target).await?;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    found
}

/// Asked over a channel of its own: the broker closes it if there is no such queue.
async fn exists(connection: &Connection, name: &str) -> Result<bool, BrokerProblem> {
    let channel = connection.open_channel(None).await?;
    let passive = QueueDeclareArguments::new(name).passive(true).finish();
    let exists = channel.queue_declare(passive).await.is_ok();
    if exists {
        let _ = channel.close().await;
    }
    Ok(exists)
}

/// The message of a queue, which stays there. If two instances have written at once, the smaller of two messages is taken and
/// the other one deleted.
async fn look(channel: &Channel, name: &str) -> Result<Option<String>, BrokerProblem> {
    let mut kept: Option<(u64, Vec<u8>)> = None;
    while let Some((ok, _, body)) = channel.basic_get(BasicGetArguments::new(name)).await? {
        let taken = (ok.delivery_tag(), body);
        kept = Some(match kept {
            None => taken,
            Some(before) => {
                let (less, more) = if before.1 <= taken.1 { (before, taken) } else { (taken, before) };
                channel.basic_ack(BasicAckArguments::new(more.0, false)).await?;
                less
            }
        });
    }
    let Some((tag, body)) = kept else { return Ok(None) };
    channel.basic_nack(BasicNackArguments::new(tag, false, true)).await?;
    String::from_utf8(body).map(Some).map_err(|_| foreign(name))
}
