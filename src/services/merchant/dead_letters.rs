//! Purchases that were set aside, for an administrator: listed, put back, deleted; as `seckill dead-letters` does it, while servers run.
//!
//! A broker shows messages only by handing them out, and to one reader at a time. So one instance looks at a time, over a connection of
//! its own, and gives back what it has taken before the next one looks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::{OrderId, OrderStatus, Purchase, Quantity, Timestamp, UserId};
use crate::queue::{DeadLetter, DeadLetters, Kept, LetterPosition, MessagePart, OrderQueue, PutBack, decode};
use crate::services::accounts::Identity;
use crate::services::admin_log;
use crate::services::recovery::Replay;

/// Letters that are looked at, the oldest first. When they are dealt with, the next ones come.
const MAX_LOOKED_AT: usize = 1_000;
/// To wait until somebody else has looked.
const TURN_PATIENCE: Duration = Duration::from_secs(3);
/// Everything that is done with the broker in one turn.
const TIMEOUT: Duration = Duration::from_secs(20);
/// A purchase that was put back is waited for this long.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);
const WRITTEN_LOOKS: Duration = Duration::from_millis(50);
/// Orders that the administrators' log names.
const MAX_NAMED: usize = 10;
const LOCK: &str = "dead-letters";

/// See the module.
#[derive(Clone)]
pub struct DeadLetterDesk {
    db: Db,
    queue: Arc<OrderQueue>,
    replay: Arc<Replay>,
    turn: Arc<Mutex<()>>,
    runtime: Handle,
}

/// A message that was set aside.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub struct DeadLetterView {
    id: String,
    #[schema(required)]
    parked_at: Option<Timestamp>,
    #[schema(required)]
    reason: Option<String>,
    #[schema(required)]
    product_id: Option<Value>,
    purchases: usize,
    body: String,
}

/// A page of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterPage {
    items: Vec<DeadLetterView>,
    #[schema(required)]
    next_cursor: Option<String>,
    /// Messages that are set aside, also those that are not looked at yet.
    total: usize,
}

/// What became of a dead letter.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayedLetter {
    id: String,
    /// Why all of it stays set aside.
    #[schema(required)]
    reason: Option<&'static str>,
    purchases: Vec<ReplayedPurchase>,
}

/// What became of one of its purchases.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayedPurchase {
    order_id: OrderId,
    user_id: UserId,
    quantity: Quantity,
    outcome: ReplayOutcome,
    /// Where its order stands; `null`: it has no row yet.
    #[schema(required)]
    status: Option<OrderStatus>,
    /// Why it stays set aside.
    #[schema(required)]
    reason: Option<String>,
}

/// What was done with a purchase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayOutcome {
    /// It is on its way to become an order.
    PutBack,
    /// It had been decided before.
    Decided,
    /// It stays set aside.
    Kept,
}

impl DeadLetterDesk {
    /// Of `queue`; `replay` says what of a letter can go back. Must be called on the main runtime.
    pub fn new(db: Db, queue: Arc<OrderQueue>, replay: Replay) -> Self {
        Self { db, queue, replay: Arc::new(replay), turn: Arc::default(), runtime: Handle::current() }
    }

    /// The oldest first.
    pub async fn list(&self, after: Option<LetterPosition>, limit: usize) -> Result<DeadLetterPage> {
        let desk = self.clone();
        let (mut letters, total) = self
            .in_turn(async move {
                let mut letters = desk.open().await?;
                let listed = letters.list_some(MAX_LOOKED_AT).await;
                letters.close().await;
                listed.map_err(Error::Unavailable)
            })
            .await?;
        // Two copies of one message are one letter.
        let mut seen = HashSet::new();
        letters.retain(|letter| seen.insert(letter.id.clone()));
        letters.sort_by_cached_key(DeadLetter::position);
        letters.retain(|letter| after.as_ref().is_none_or(|after| letter.position() > *after));
        let is_cut = letters.len() > limit;
        letters.truncate(limit);
        let next_cursor = letters.last().filter(|_| is_cut).map(|last| last.position().to_string());
        Ok(DeadLetterPage { items: letters.into_iter().map(DeadLetterView::of).collect(), next_cursor, total })
    }

    /// Puts a letter back, as far as its purchases can still become orders.
    pub async fn replay(&self, admin: Identity, id: String) -> Result<ReplayedLetter> {
        let desk = self.clone();
        let replayed = self.in_turn(async move { desk.replay_in_turn(admin, &id).await.map(|done| (id, done)) });
        let (id, mut purchases) = replayed.await?;
        self.wait_until_written(&mut purchases).await?;
        Ok(ReplayedLetter { id, reason: purchases.is_empty().then_some("it cannot be read"), purchases })
    }

    /// Deletes a letter: what was promised in it is lost.
    pub async fn delete(&self, admin: Identity, id: String) -> Result<()> {
        let desk = self.clone();
        self.in_turn(async move {
            let mut letters = desk.open().await?;
            let deleted = desk.delete_held(&mut letters, admin, &id).await;
            letters.close().await;
            deleted
        })
        .await
    }

    /// Does something with the letters while nobody else does, to its end: also when whoever asked has gone.
    async fn in_turn<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let (db, turn) = (self.db.clone(), self.turn.clone());
        let busy = || Error::Unavailable("somebody else looks at the dead letters".to_owned());
        let task = self.runtime.spawn(async move {
            let Ok(_turn) = tokio::time::timeout(TURN_PATIENCE, turn.lock_owned()).await else { return Err(busy()) };
            let lock = db.take_lock(LOCK, TURN_PATIENCE).await?.ok_or_else(busy)?;
            let done = tokio::time::timeout(TIMEOUT, work).await;
            lock.release().await;
            done.unwrap_or_else(|_| Err(Error::Unavailable("the dead letters took too long".to_owned())))
        });
        task.await.map_err(|stopped| Error::Internal(format!("looking at dead letters: {stopped}")))?
    }

    async fn open(&self) -> Result<DeadLetters> {
        self.queue.dead_letters().await.map_err(Error::Unavailable)
    }

    async fn replay_in_turn(&self, admin: Identity, id: &str) -> Result<Vec<ReplayedPurchase>> {
        let mut letters = self.open().await?;
        let replayed = self.replay_held(&mut letters, id).await;
        letters.close().await;
        let replayed = replayed?;
        if replayed.is_empty() {
            return Ok(replayed);
        }
        self.note(admin, "Put a dead letter back", id, told(&replayed)).await?;
        Ok(replayed)
    }

    async fn replay_held(&self, letters: &mut DeadLetters, id: &str) -> Result<Vec<ReplayedPurchase>> {
        let held = letters.hold(id, MAX_LOOKED_AT).await.map_err(Error::Unavailable)?;
        if held.is_empty() {
            return Err(Error::DeadLetterNotFound);
        }
        let mut replayed = Vec::new();
        for held in held.iter().filter(|held| !purchases_in(&held.letter.body).is_empty()) {
            let back = self.replay.readmit(&held.letter).await.map_err(Error::Unavailable)?;
            // A copy says nothing new.
            replayed = outcomes(&held.letter, &back);
            letters.put_back(held, back).await.map_err(Error::Unavailable)?;
        }
        Ok(replayed)
    }

    async fn delete_held(&self, letters: &mut DeadLetters, admin: Identity, id: &str) -> Result<()> {
        let held = letters.hold(id, MAX_LOOKED_AT).await.map_err(Error::Unavailable)?;
        let Some(first) = held.first() else { return Err(Error::DeadLetterNotFound) };
        // Noted before: what is gone for good must not be gone without a trace.
        self.note(admin, "Deleted a dead letter", id, what_is_lost(&first.letter)).await?;
        for held in &held {
            letters.forget(held).await.map_err(Error::Unavailable)?;
        }
        Ok(())
    }

    async fn note(&self, admin: Identity, what: &'static str, id: &str, changes: String) -> Result<()> {
        let object = format!("dead letter {id}");
        let noting = self.db.transaction(move |conn| {
            Box::pin(async move { admin_log::note(conn, admin, what, object, changes, None).await })
        });
        noting.await?.log();
        Ok(())
    }

    /// Says where the orders stand. A consumer writes them soon.
    async fn wait_until_written(&self, purchases: &mut [ReplayedPurchase]) -> Result<()> {
        let ids: Vec<OrderId> = purchases.iter().map(|purchase| purchase.order_id).collect();
        let looks = WRITTEN_WITHIN.as_millis() / WRITTEN_LOOKS.as_millis();
        for look in 0..=looks {
            let wanted = ids.clone();
            let read = self.db.read(move |conn| Box::pin(async move { conn.order_states(&wanted).await }));
            let found: HashMap<OrderId, OrderStatus> =
                read.await?.into_iter().map(|order| (order.id, order.status)).collect();
            for purchase in purchases.iter_mut() {
                purchase.status = found.get(&purchase.order_id).copied();
            }
            let waits =
                |purchase: &ReplayedPurchase| purchase.outcome == ReplayOutcome::PutBack && purchase.status.is_none();
            if look == looks || !purchases.iter().any(waits) {
                break;
            }
            tokio::time::sleep(WRITTEN_LOOKS).await;
        }
        Ok(())
    }
}

impl DeadLetterView {
    fn of(letter: DeadLetter) -> Self {
        let (product_id, purchases) = letter.content();
        let body = String::from_utf8_lossy(&letter.body).into_owned();
        Self { id: letter.id, parked_at: letter.parked_at, reason: letter.reason, product_id, purchases, body }
    }
}

fn purchases_in(body: &[u8]) -> Vec<Purchase> {
    match decode(body) {
        Ok(MessagePart::Purchases(group)) => group.items,
        _ => Vec::new(),
    }
}

/// What becomes of each purchase of a letter.
fn outcomes(letter: &DeadLetter, back: &PutBack) -> Vec<ReplayedPurchase> {
    let again: HashSet<OrderId> =
        back.message.iter().flat_map(|body| purchases_in(body)).map(|purchase| purchase.order_id).collect();
    let reasons: HashMap<OrderId, &String> =
        back.kept.iter().flat_map(|Kept { reasons, .. }| reasons).map(|(order, reason)| (*order, reason)).collect();
    let outcome = |Purchase { order_id, user_id, quantity }: Purchase| {
        let reason = reasons.get(&order_id).map(|reason| (*reason).clone());
        let outcome = match (again.contains(&order_id), &reason) {
            (true, _) => ReplayOutcome::PutBack,
            (false, Some(_)) => ReplayOutcome::Kept,
            (false, None) => ReplayOutcome::Decided,
        };
        ReplayedPurchase { order_id, user_id, quantity, outcome, status: None, reason }
    };
    purchases_in(&letter.body).into_iter().map(outcome).collect()
}

/// For the administrators' log.
fn told(purchases: &[ReplayedPurchase]) -> String {
    let count = |wanted| purchases.iter().filter(|purchase| purchase.outcome == wanted).count();
    format!(
        "purchases put back {}, decided before {}, kept {}",
        count(ReplayOutcome::PutBack),
        count(ReplayOutcome::Decided),
        count(ReplayOutcome::Kept)
    )
}

/// The same: which promises are gone.
fn what_is_lost(letter: &DeadLetter) -> String {
    let purchases = purchases_in(&letter.body);
    let product = letter.content().0.map_or_else(|| "unknown".to_owned(), |product| product.to_string());
    let named: Vec<String> =
        purchases.iter().take(MAX_NAMED).map(|item| format!("{} of user {}", item.order_id, item.user_id)).collect();
    let more = purchases.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("product {product}, orders {}{more}", named.join(", "))
}
