//! The queues that must be there, and what they are declared with.

use amqprs::channel::{Channel, QueueDeclareArguments};
use amqprs::connection::Connection;
use amqprs::error::Error as AmqpError;
use amqprs::{FieldTable, FieldValue};

/// Messages in each queue at most; the broker refuses more.
const QUEUE_MAX_MESSAGES: i64 = 500_000;

/// Makes both queues, unless they are there.
pub(super) async fn declare_queues(
    connection: &Connection,
    channel: &Channel,
    orders: &str,
    dead: &str,
) -> Result<(), AmqpError> {
    let mut arguments = queue_arguments(connection);
    channel.queue_declare(durable_queue(dead, arguments.clone())).await?;
    if let Ok(key) = "x-single-active-consumer".try_into() {
        arguments.insert(key, true.into());
    }
    channel.queue_declare(durable_queue(orders, arguments)).await?;
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
    // From RabbitMQ 4 on a message is dropped after 20 returns unless this says otherwise; older ones do not know -1.
    let version = connection.server_properties().version();
    if version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 4) {
        set("x-delivery-limit", FieldValue::l(-1));
    }
    arguments
}
