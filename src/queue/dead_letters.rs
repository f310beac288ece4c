//! What was set aside because it can never become orders: to be seen, repeated or dropped by an operator.

use std::path::Path;

use super::embedded::Journal;
use super::rabbitmq;
use crate::config;

/// A message that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why, if whoever set it aside said so.
    pub reason: Option<String>,
    /// What it was.
    pub body: Vec<u8>,
}

/// The dead letters of the backend that was configured.
pub enum DeadLetters {
    /// In the journal, which no server may be using.
    Embedded(Box<Journal>),
    /// In RabbitMQ.
    RabbitMq(Box<rabbitmq::DeadLetters>),
}

impl DeadLetters {
    /// Those in a journal.
    pub fn embedded(file: &Path) -> Result<Self, String> {
        Ok(Self::Embedded(Box::new(Journal::open(file)?)))
    }

    /// Those in RabbitMQ.
    pub async fn rabbitmq(settings: &config::RabbitMq) -> Result<Self, String> {
        Ok(Self::RabbitMq(Box::new(rabbitmq::DeadLetters::open(settings).await?)))
    }

    /// All of them, the oldest first.
    pub async fn list(&mut self) -> Result<Vec<DeadLetter>, String> {
        match self {
            Self::Embedded(journal) => journal.dead_letters().map_err(|error| error.to_string()),
            Self::RabbitMq(letters) => letters.list().await,
        }
    }

    /// Puts them back where they came from; returns how many. A purchase that is repeated is found to be done, or
    /// becomes an order now.
    pub async fn replay(&mut self) -> Result<usize, String> {
        match self {
            Self::Embedded(journal) => journal.replay_dead().map_err(|error| error.to_string()),
            Self::RabbitMq(letters) => letters.replay().await,
        }
    }

    /// Deletes them; returns how many.
    pub async fn drop_all(&mut self) -> Result<usize, String> {
        match self {
            Self::Embedded(journal) => journal.drop_dead().map_err(|error| error.to_string()),
            Self::RabbitMq(letters) => letters.drop_all().await,
        }
    }

    /// Closes the link.
    pub async fn close(self) {
        match self {
            Self::Embedded(_) => {}
            Self::RabbitMq(letters) => letters.close().await,
        }
    }
}
