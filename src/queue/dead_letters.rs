//! What was set aside because it can never become orders: to be seen, repeated or dropped by an operator.

use std::path::Path;

use super::dead_letter::{Chosen, DeadLetter, PutBack, Replayed};
use super::embedded::Journal;
use super::rabbitmq;
use crate::config;

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

    /// Puts them back where they came from, as `readmit` says. A purchase that is repeated is found to be done, or becomes
    /// an order now. An id that is not there is an error, and nothing is done. A journal knows no gate that could be newer.
    pub async fn replay(
        &mut self,
        chosen: &Chosen,
        readmit: impl AsyncFn(&DeadLetter) -> Result<PutBack, String>,
    ) -> Result<Replayed, String> {
        match self {
            Self::Embedded(journal) => Ok(Replayed { letters: journal.replay_dead(chosen)?, kept: Vec::new() }),
            Self::RabbitMq(letters) => letters.replay(chosen, readmit).await,
        }
    }

    /// Deletes them; returns how many. An id that is not there is an error, and nothing is done.
    pub async fn remove(&mut self, chosen: &Chosen) -> Result<usize, String> {
        match self {
            Self::Embedded(journal) => journal.drop_dead(chosen),
            Self::RabbitMq(letters) => letters.remove(chosen).await,
        }
    }

    /// Closes the connection.
    pub async fn close(self) {
        match self {
            Self::Embedded(_) => {}
            Self::RabbitMq(letters) => letters.close().await,
        }
    }
}
