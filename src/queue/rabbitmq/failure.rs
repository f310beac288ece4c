//! How the parts of a connection learn that it has failed: what the library calls when the broker closes something.

use std::sync::Arc;

use amqprs::callbacks::{ChannelCallback, ConnectionCallback};
use amqprs::channel::Channel;
use amqprs::connection::Connection;
use amqprs::error::Error as AmqpError;
use amqprs::{Ack, BasicProperties, Cancel, Close, CloseChannel, Nack, Return};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::problem::BrokerProblem;

/// The first thing that went wrong with a connection, for all its parts to see.
#[derive(Clone, Default)]
pub(super) struct Failure {
    happened: CancellationToken,
    problem: Arc<Mutex<Option<BrokerProblem>>>,
}

impl Failure {
    pub(super) fn report(&self, problem: BrokerProblem) {
        self.problem.lock().get_or_insert(problem);
        self.happened.cancel();
    }

    /// What was reported first.
    pub(super) fn problem(&self) -> Option<BrokerProblem> {
        self.problem.lock().clone()
    }

    pub(super) fn token(&self) -> &CancellationToken {
        &self.happened
    }
}

/// Notes why the broker closes a connection.
pub(super) struct OnConnection(pub(super) Failure);

#[async_trait]
impl ConnectionCallback for OnConnection {
    async fn close(&mut self, _: &Connection, close: Close) -> Result<(), AmqpError> {
        self.0.report(BrokerProblem::from(&close));
        Ok(())
    }

    // The library does not announce that it understands these two, so the broker does not send them: a blocked broker
    // shows by confirms that do not come.
    async fn blocked(&mut self, _: &Connection, _: String) {}

    async fn unblocked(&mut self, _: &Connection) {}

    async fn secret_updated(&mut self, _: &Connection) {}
}

/// Notes why the broker closes a channel that publishes nothing.
pub(super) struct OnChannel(pub(super) Failure);

#[async_trait]
impl ChannelCallback for OnChannel {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), AmqpError> {
        self.0.report(BrokerProblem::from(&close));
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), AmqpError> {
        self.0.report(BrokerProblem::unreachable("the broker cancelled the consumer: is the queue gone?"));
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, AmqpError> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, _: Ack) {}

    async fn publish_nack(&mut self, _: &Channel, _: Nack) {}

    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {}
}
