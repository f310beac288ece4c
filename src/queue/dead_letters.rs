//! What was set aside because it can never become orders: to be seen, repeated or dropped by an operator.

use std::path::Path;

use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::Value;

use super::embedded::Journal;
use super::rabbitmq;
use crate::config;
use crate::model::Timestamp;

/// Digits of an id that is made from a message.
const ID_DIGITS: usize = 16;

/// A message that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it. Two copies of one message have the same.
    pub id: String,
    /// When it was set aside, if that was noted.
    pub parked_at: Option<Timestamp>,
    /// Why, if whoever set it aside said so.
    pub reason: Option<String>,
    /// What it was.
    pub body: Vec<u8>,
}

/// Which dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// All of them.
    All,
    /// Those with these ids.
    Ids(Vec<String>),
}

/// What becomes of a dead letter that is replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutBack {
    /// Goes back into the queue.
    pub message: Option<Vec<u8>>,
    /// Stays set aside, and why.
    pub kept: Option<(Vec<u8>, String)>,
}

/// What replaying came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Letters that were put back, or found to be done.
    pub letters: usize,
    /// Why purchases in them stay set aside.
    pub kept: Vec<String>,
}

/// The dead letters of the backend that was configured.
pub enum DeadLetters {
    /// In the journal, which no server may be using.
    Embedded(Box<Journal>),
    /// In RabbitMQ.
    RabbitMq(Box<rabbitmq::DeadLetters>),
}

/// The id of a message that has no number: made from what is in it, so that it stays the same.
pub(super) fn id_of(body: &[u8]) -> String {
    let digits: String = digest(&SHA256, body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    digits[..ID_DIGITS].to_owned()
}

/// What can be read of a message that may be anything.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Readable {
    product_id: Option<Value>,
    items: Vec<Value>,
}

impl DeadLetter {
    /// The product and the number of purchases in it, as far as they can be read.
    pub fn content(&self) -> (Option<Value>, usize) {
        let Readable { product_id, items } = serde_json::from_slice(&self.body).unwrap_or_default();
        (product_id, items.len())
    }
}

impl Chosen {
    pub(super) fn contains(&self, id: &str) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => ids.iter().any(|chosen| chosen == id),
        }
    }

    /// An error that names those that are not there.
    pub(super) fn check<'a>(&self, there: impl Iterator<Item = &'a str>) -> Result<(), String> {
        let Self::Ids(ids) = self else { return Ok(()) };
        let there: Vec<&str> = there.collect();
        let missing: Vec<&str> = ids.iter().map(String::as_str).filter(|id| !there.contains(id)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("there is no dead letter {}; nothing was done", missing.join(", ")))
    }
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

    /// Closes the link.
    pub async fn close(self) {
        match self {
            Self::Embedded(_) => {}
            Self::RabbitMq(letters) => letters.close().await,
        }
    }
}
