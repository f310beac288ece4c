//! `Idempotency-Key`: the first answer to a request that changes something is the answer to its repeats.

use std::time::Duration;

use backon::{BackoffBuilder, ConstantBuilder};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::view::ProductView;
use crate::db::{Db, DbConn, DbError, NewKey, StoredKey};
use crate::error::{Error, Result};
use crate::model::{ProductId, Timestamp};
use crate::services::accounts::Identity;

const MAX_IDEMPOTENCY_KEY: usize = 255;
/// A key is good for this long after its use; then the same request is a new one. Clients repeat within minutes.
const KEY_LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// Between two looks for old ones: 5 to 10 minutes, so that instances that started together do not look together for long.
const EXPIRY_PAUSES: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_secs(300)).with_jitter().without_max_times();
const EXPIRED_AT_A_TIME: i64 = 500;

/// Value of the `Idempotency-Key` header.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// 1 to 255 visible ASCII characters.
    pub fn parse(value: &[u8]) -> Result<Self> {
        let valid = (1..=MAX_IDEMPOTENCY_KEY).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
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
        for pause in EXPIRY_PAUSES.build() {
            if let Some(Err(error)) = stop.run_until_cancelled(self.forget(Timestamp::now())).await {
                tracing::debug!(%error, "Could not forget old Idempotency-Keys; the next round does");
            }
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
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

/// The answer to a request that changes something. It is kept as the text that was sent: a later version shows other fields,
/// and must repeat this one to the byte all the same.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The product that was made or changed.
    pub product: ProductId,
    /// The product as it was then, as JSON.
    pub json: String,
}

/// The first answers that are kept.
pub(in crate::services) struct Answers {
    db: Db,
}

impl Answers {
    /// Kept in `db`.
    pub(in crate::services) fn new(db: Db) -> Self {
        Self { db }
    }

    /// The answer that the first request with this key was given. `show` reads a product as it is now.
    pub(in crate::services) async fn first(
        &self,
        key: Option<&NewKey>,
        show: impl AsyncFn(ProductId) -> Result<ProductView>,
    ) -> Result<Option<Answered>> {
        let Some(key) = key else { return Ok(None) };
        match self.find_key(key).await? {
            None => Ok(None),
            Some(StoredKey { product_id: product, response: Some(json), .. }) => Ok(Some(Answered { product, json })),
            // It did what was asked and ended before it answered, or is about to: this is the first answer, unless that one
            // is faster.
            Some(stored) => self.keep(Some(key.clone()), &show(stored.product_id).await?).await.map(Some),
        }
    }

    async fn find_key(&self, key: &NewKey) -> Result<Option<StoredKey>> {
        let asked = key.clone();
        let stored = self.db.read(|conn| Box::pin(async move { conn.find_key(&asked).await })).await?;
        match stored {
            Some(stored) if stored.request_hash != key.request_hash => Err(Error::IdempotencyConflict),
            stored => Ok(stored),
        }
    }

    /// The answer to a request that did what `view` shows, kept if it came with a key. Of two that are kept at once the
    /// first stands, and is the answer to both.
    pub(in crate::services) async fn keep(&self, key: Option<NewKey>, view: &ProductView) -> Result<Answered> {
        let json =
            serde_json::to_string(view).map_err(|error| Error::Internal(format!("rendering an answer: {error}")))?;
        let answered = Answered { product: view.id, json };
        let Some(key) = key else { return Ok(answered) };
        let (of, json) = (key.clone(), answered.json.clone());
        let stored = self.db.transaction(|conn| Box::pin(async move { conn.store_response(&of, &json).await })).await;
        match stored {
            Ok(true) => Ok(answered),
            Ok(false) => match self.find_key(&key).await {
                Ok(Some(StoredKey { product_id: product, response: Some(json), .. })) => Ok(Answered { product, json }),
                // What was asked is done, so there is an answer.
                _ => Ok(answered),
            },
            Err(error) => {
                tracing::warn!(%error, "Could not keep the answer to an Idempotency-Key");
                Ok(answered)
            }
        }
    }
}

pub(in crate::services) async fn use_key(conn: &mut DbConn, key: Option<NewKey>, product: ProductId) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    conn.insert_key(&key, product).await.map_err(|error| match error {
        DbError::Duplicate(_) => Error::IdempotencyConflict,
        other => other.into(),
    })
}

/// A request is recognised by the hash of its text. A field that is added to it later must be left out of the text when it is
/// absent (`skip_serializing_if`): else a repeat after the upgrade would be taken for another request.
pub(in crate::services) fn new_key(
    by: Identity,
    key: IdempotencyKey,
    action: &str,
    request: &impl Serialize,
) -> NewKey {
    let request = serde_json::to_vec(&(action, request)).unwrap_or_default();
    NewKey { user_id: by.user_id, key: key.0, request_hash: digest(&SHA256, &request).as_ref().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;
    use crate::services::catalog::requests::{CreateProduct, Restock};

    /// The texts are those of the first version with keys: kept keys hold their hashes.
    #[test]
    fn a_request_is_recognised_after_an_upgrade() {
        let by = Identity { user_id: 7.try_into().unwrap(), role: Role::Admin };
        let key = || IdempotencyKey("key".to_owned());
        let create = r#"{"name":"Boot","price_cents":5,"stock":1}"#;
        let create: CreateProduct = serde_json::from_str(create).unwrap();
        let kept = r#"["POST /products",{"name":"Boot","description":"","price_cents":5,"stock":1,"starts_at":null,"ends_at":null}]"#;
        assert_eq!(
            new_key(by, key(), "POST /products", &create).request_hash,
            digest(&SHA256, kept.as_bytes()).as_ref()
        );
        let restock: Restock = serde_json::from_str(r#"{"units":5}"#).unwrap();
        let kept = r#"["POST /products/3/restock",{"units":5}]"#;
        assert_eq!(
            new_key(by, key(), "POST /products/3/restock", &restock).request_hash,
            digest(&SHA256, kept.as_bytes()).as_ref()
        );
    }
}
