//! A message that was set aside, and what an operator says to do with it.

use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::Value;

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
