//! Queries on `idempotency_keys`.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::conn::{DbConn, on_db};
use super::error::DbResult;
use super::schema::idempotency_keys;
use crate::model::{ProductId, Timestamp, UserId};

/// A key that comes with a request.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Who sent it; keys of different users do not meet.
    pub user_id: UserId,
    /// The header's value.
    pub key: String,
    /// SHA-256 of what was asked.
    pub request_hash: Vec<u8>,
}

/// A key that has been used.
#[derive(Debug, Clone, Queryable)]
pub struct StoredKey {
    /// SHA-256 of what was asked.
    pub request_hash: Vec<u8>,
    /// The product that the first request made or changed.
    pub product_id: ProductId,
    /// The first answer, as JSON; `None` when that request ended before it answered.
    pub response: Option<String>,
}

impl DbConn {
    /// What a key was used for.
    pub async fn find_key(&mut self, key: &NewKey) -> DbResult<Option<StoredKey>> {
        let conn = self;
        let query = idempotency_keys::table
            .select((idempotency_keys::request_hash, idempotency_keys::product_id, idempotency_keys::response))
            .filter(idempotency_keys::user_id.eq(key.user_id))
            .filter(idempotency_keys::idempotency_key.eq(&key.key));
        on_db!(conn, query.get_result(conn).await.optional())
    }

    /// Notes the use of a key, in the transaction that does what was asked.
    ///
    /// `DbError::Duplicate` when another request got there first.
    pub async fn insert_key(&mut self, key: &NewKey, product: ProductId) -> DbResult<()> {
        let conn = self;
        let row = (
            idempotency_keys::user_id.eq(key.user_id),
            idempotency_keys::idempotency_key.eq(&key.key),
            idempotency_keys::request_hash.eq(&key.request_hash),
            idempotency_keys::product_id.eq(product),
            idempotency_keys::created_at.eq(Timestamp::now()),
        );
        on_db!(conn, diesel::insert_into(idempotency_keys::table).values(row).execute(conn).await)?;
        Ok(())
    }

    /// Keeps the answer that is given, unless one is kept; then false.
    pub async fn store_response(&mut self, key: &NewKey, response: &str) -> DbResult<bool> {
        let conn = self;
        let row = idempotency_keys::table
            .filter(idempotency_keys::user_id.eq(key.user_id))
            .filter(idempotency_keys::idempotency_key.eq(&key.key))
            .filter(idempotency_keys::response.is_null());
        let kept = on_db!(conn, diesel::update(row).set(idempotency_keys::response.eq(response)).execute(conn).await)?;
        Ok(kept == 1)
    }

    /// Forgets keys that were used before that time, the oldest first and about `most` of them; how many. Safe on several
    /// instances at once.
    pub async fn forget_keys(&mut self, before: Timestamp, most: i64) -> DbResult<usize> {
        let conn = self;
        let old = idempotency_keys::table.filter(idempotency_keys::created_at.lt(before));
        // Not every database can delete a number of rows: the age of the last of them bounds it.
        let last =
            old.select(idempotency_keys::created_at).order(idempotency_keys::created_at).offset(most - 1).limit(1);
        let last: Option<Timestamp> = on_db!(conn, last.get_result(conn).await.optional())?;
        match last {
            None => on_db!(conn, diesel::delete(old).execute(conn).await),
            Some(last) => {
                let oldest = idempotency_keys::table.filter(idempotency_keys::created_at.le(last));
                on_db!(conn, diesel::delete(oldest).execute(conn).await)
            }
        }
    }
}
