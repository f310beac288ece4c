//! `Idempotency-Key`: the first answer to a request that changes something is the answer to its repeats.

use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::Identity;
use super::catalog::{Catalog, ProductView};
use super::sweeper::jittered;
use crate::db::{Db, DbConn, DbError, NewKey, StoredKey};
use crate::error::{Error, Result};
use crate::model::{ProductId, Timestamp};

const IDEMPOTENCY_KEY_MOST: usize = 255;
/// A key is good for this long after its use; then the same request is a new one. Clients repeat within minutes.
const KEY_LIFETIME: Duration = Duration::from_secs(48 * 3600);
const EXPIRY_INTERVAL: Duration = Duration::from_secs(600);
const EXPIRED_AT_A_TIME: i64 = 500;

/// Value of the `Idempotency-Key` header.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// 1 to 255 visible ASCII characters.
    pub fn parse(value: &[u8]) -> Result<Self> {
        let valid = (1..=IDEMPOTENCY_KEY_MOST).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
        match std::str::from_utf8(value) {
            Ok(key) if valid => Ok(Self(key.to_owned())),
            _ => Err(Error::Invalid("Idempotency-Key: must be 1 to 255 visible ASCII characters".to_owned())),
        }
    }
}

/// Forgets keys that are older than their lifetime, so that they do not pile up. Runs in every instance.
pub struct KeyExpiry {
    db: Db,
}

impl KeyExpiry {
    /// Looks in `db`.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Forgets now and then, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            if let Some(Err(error)) = stop.run_until_cancelled(self.forget(Timestamp::now())).await {
                tracing::debug!(%error, "Could not forget old Idempotency-Keys; the next round does");
            }
            // Instances that started together do not ask together for long.
            if stop.run_until_cancelled(tokio::time::sleep(jittered(EXPIRY_INTERVAL))).await.is_none() {
                return;
            }
        }
    }

    /// Some at a time, for they are locked meanwhile.
    async fn forget(&self, now: Timestamp) -> Result<()> {
        let before = now.before(KEY_LIFETIME);
        loop {
            let forgotten = self
                .db
                .transaction(move |conn| Box::pin(async move { conn.forget_keys(before, EXPIRED_AT_A_TIME).await }))
                .await?;
            if (forgotten as i64) < EXPIRED_AT_A_TIME {
                return Ok(());
            }
        }
    }
}

impl Catalog {
    /// The answer that the first request with this key was given.
    pub(super) async fn first_answer(&self, key: Option<&NewKey>) -> Result<Option<ProductView>> {
        let Some(key) = key.cloned() else { return Ok(None) };
        let request_hash = key.request_hash.clone();
        let stored = self.db.read(|conn| Box::pin(async move { conn.find_key(&key).await })).await?;
        match stored {
            None => Ok(None),
            Some(stored) if stored.request_hash != request_hash => Err(Error::IdempotencyConflict),
            Some(StoredKey { response: Some(json), .. }) => serde_json::from_str(&json)
                .map(Some)
                .map_err(|error| Error::Internal(format!("a stored answer cannot be read: {error}"))),
            // It did what was asked and ended before it answered, or is about to.
            Some(stored) => self.read(stored.product_id).await.map(Some),
        }
    }

    /// The same when another request with this key got there first; else the error itself.
    pub(super) async fn first_answer_after(&self, error: Error, key: Option<&NewKey>) -> Result<ProductView> {
        match error {
            Error::IdempotencyConflict => self.first_answer(key).await?.ok_or(Error::IdempotencyConflict),
            error => Err(error),
        }
    }

    pub(super) async fn remember(&self, key: Option<NewKey>, view: ProductView) -> ProductView {
        if let Some(key) = key
            && let Ok(json) = serde_json::to_string(&view)
        {
            let stored =
                self.db.transaction(|conn| Box::pin(async move { conn.store_response(&key, &json).await })).await;
            if let Err(error) = stored {
                tracing::warn!(%error, "Could not keep the answer to an Idempotency-Key");
            }
        }
        view
    }
}

pub(super) async fn use_key(conn: &mut DbConn, key: Option<NewKey>, product: ProductId) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    conn.insert_key(&key, product).await.map_err(|error| match error {
        DbError::Duplicate(_) => Error::IdempotencyConflict,
        other => other.into(),
    })
}

pub(super) fn new_key(by: Identity, key: IdempotencyKey, action: &str, request: &impl Serialize) -> NewKey {
    let request = serde_json::to_vec(&(action, request)).unwrap_or_default();
    NewKey { user_id: by.user_id, key: key.0, request_hash: Sha256::digest(request).to_vec() }
}
