//! What was set aside because it can never become orders: to be seen, repeated or dropped by an operator.

use std::path::Path;

use super::dead_letter::{Chosen, DeadLetter, Held, PutBack, Replayed};
use super::embedded::{Journal, JournalDesk};
use super::rabbitmq;
use crate::config;

/// Nobody asks for it: a journal that no server uses is for whole commands.
const NOT_SERVED: &str = "no server uses this journal";
const ONE_BY_ONE: &str = "a server puts its dead letters back one by one";

/// The dead letters of the backend that was configured.
pub enum DeadLetters {
    /// In the journal, which no server may be using.
    Embedded(Box<Journal>),
    /// In the journal of this server.
    Served(JournalDesk),
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
            Self::Embedded(journal) => journal.dead_letters(i64::MAX).map_err(|error| error.to_string()),
            Self::Served(desk) => Ok(desk.list(usize::MAX).await?.0),
            Self::RabbitMq(letters) => Ok(letters.list(usize::MAX).await?.0),
        }
    }

    /// The oldest, `most` of them, and how many there are.
    pub async fn list_some(&mut self, most: usize) -> Result<(Vec<DeadLetter>, usize), String> {
        match self {
            Self::Embedded(_) => {
                let mut letters = self.list().await?;
                let count = letters.len();
                letters.truncate(most);
                Ok((letters, count))
            }
            Self::Served(desk) => desk.list(most).await,
            Self::RabbitMq(letters) => letters.list(most).await,
        }
    }

    /// Takes those of the oldest `most` in hand that have this id: two copies of one message have the same. They stay where they are
    /// unless something is done with them.
    pub async fn hold(&mut self, id: &str, most: usize) -> Result<Vec<Held>, String> {
        match self {
            Self::Embedded(_) => Err(NOT_SERVED.to_owned()),
            Self::Served(desk) => desk.hold(id).await,
            Self::RabbitMq(letters) => letters.hold(id, most).await,
        }
    }

    /// Puts one back, as far as `back` says.
    pub async fn put_back(&mut self, held: &Held, back: PutBack) -> Result<(), String> {
        match self {
            Self::Embedded(_) => Err(NOT_SERVED.to_owned()),
            Self::Served(desk) => desk.put_back(held, back).await,
            Self::RabbitMq(letters) => letters.put_back(held, back).await,
        }
    }

    /// Deletes one.
    pub async fn forget(&mut self, held: &Held) -> Result<(), String> {
        match self {
            Self::Embedded(_) => Err(NOT_SERVED.to_owned()),
            Self::Served(desk) => desk.put_back(held, PutBack { message: None, kept: None }).await,
            Self::RabbitMq(letters) => letters.forget(held).await,
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
            Self::Served(_) => Err(ONE_BY_ONE.to_owned()),
            Self::RabbitMq(letters) => letters.replay(chosen, readmit).await,
        }
    }

    /// Deletes them; returns how many. An id that is not there is an error, and nothing is done.
    pub async fn remove(&mut self, chosen: &Chosen) -> Result<usize, String> {
        match self {
            Self::Embedded(journal) => journal.drop_dead(chosen),
            Self::Served(_) => Err(ONE_BY_ONE.to_owned()),
            Self::RabbitMq(letters) => letters.remove(chosen).await,
        }
    }

    /// Closes the connection.
    pub async fn close(self) {
        match self {
            Self::Embedded(_) | Self::Served(_) => {}
            Self::RabbitMq(letters) => letters.close().await,
        }
    }
}
