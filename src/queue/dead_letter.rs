//! A message that was set aside, and what an operator says to do with it.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::Value;

use crate::model::{OrderId, Timestamp};

/// Digits of an id that is made from a message.
const ID_DIGITS: usize = 16;

/// A message that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it. Two copies of one message have the same.
    pub id: String,
    /// When it was set aside, if that was noted.
    pub parked_at: Option<Timestamp>,
    /// Why, if that was noted.
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
    /// Stays set aside.
    pub kept: Option<Kept>,
}

/// Purchases of a dead letter that stay set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The message of them alone.
    pub body: Vec<u8>,
    /// Why, of each.
    pub reasons: Vec<(OrderId, String)>,
}

impl Kept {
    /// All reasons, as one line.
    pub fn reason(&self) -> String {
        let reasons: Vec<&str> = self.reasons.iter().map(|(_, reason)| reason.as_str()).collect();
        reasons.join("; ")
    }
}

/// A dead letter that somebody has in hand: to put it back, to delete it, or to leave it.
#[derive(Debug)]
pub struct Held {
    /// It.
    pub letter: DeadLetter,
    pub(super) place: Place,
}

/// Where it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// In the journal, under this number.
    Journal(i64),
    /// Taken from the broker, which gets it back unless it is acknowledged.
    Broker(u64),
}

/// What replaying came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Letters that were put back, or found to be done.
    pub letters: usize,
    /// Why purchases in them stay set aside.
    pub kept: Vec<String>,
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
    /// Its position among others: by its time, then by its id, numbers as numbers. A broker gives letters back in any order.
    pub fn position(&self) -> LetterPosition {
        let parked_ms = self.parked_at.map_or(0, Timestamp::unix_ms);
        LetterPosition { parked_ms, digits: self.id.len(), id: self.id.clone() }
    }

    /// The product and the number of purchases in it, as far as they can be read.
    pub fn content(&self) -> (Option<Value>, usize) {
        let Readable { product_id, items } = serde_json::from_slice(&self.body).unwrap_or_default();
        (product_id, items.len())
    }
}

/// Where a dead letter stands in a list of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterPosition {
    parked_ms: i64,
    digits: usize,
    id: String,
}

impl fmt::Display for LetterPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.parked_ms, self.id)
    }
}

impl FromStr for LetterPosition {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (parked_ms, id) = text.split_once('.').ok_or("must be a time and an id")?;
        let parked_ms = parked_ms.parse().map_err(|_| "must begin with a time")?;
        Ok(Self { parked_ms, digits: id.len(), id: id.to_owned() })
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
