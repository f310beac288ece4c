//! Queries on `token_withdrawals`: what instances tell each other of log-outs.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;

use super::conn::{DbConn, on_db};
use super::error::DbResult;
use super::readable::Readable;
use super::readable::{Row, one_by_one, readable};
use super::schema::token_withdrawals;
use crate::model::{Timestamp, UserId};

/// Older tokens of a user are refused.
#[derive(Debug, Clone, Copy, Queryable)]
pub struct TokenWithdrawal {
    /// Grows, but need not become visible in its order.
    pub id: i64,
    /// Whose tokens.
    pub user_id: UserId,
    /// The first generation, or, of the shop's directory, the first second that is good again.
    pub valid_from: i64,
    /// When.
    pub created_at: Timestamp,
}

one_by_one!(i64, TokenWithdrawal, (BigInt, BigInt, BigInt, SqlTimestamp));

impl DbConn {
    /// Notes one, in the transaction that makes it true.
    pub async fn insert_token_withdrawal(&mut self, user: UserId, valid_from: i64) -> DbResult<()> {
        let conn = self;
        let row = (
            token_withdrawals::user_id.eq(user),
            token_withdrawals::valid_from.eq(valid_from),
            token_withdrawals::created_at.eq(Timestamp::now()),
        );
        on_db!(conn, diesel::insert_into(token_withdrawals::table).values(row).execute(conn).await)?;
        Ok(())
    }

    /// Those with a greater id, `most` at most.
    pub async fn token_withdrawals_after(&mut self, id: i64, most: i64) -> DbResult<Readable<TokenWithdrawal, i64>> {
        let conn = self;
        let query = token_withdrawals::table
            .select((
                token_withdrawals::id,
                token_withdrawals::user_id,
                token_withdrawals::valid_from,
                token_withdrawals::created_at,
            ))
            .filter(token_withdrawals::id.gt(id))
            .order(token_withdrawals::id)
            .limit(most);
        let found: Vec<Row<i64, TokenWithdrawal>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable("token_withdrawals", found))
    }

    /// Deletes some of those that are older, `most` at most; how many.
    pub async fn delete_token_withdrawals(&mut self, before: Timestamp, most: i64) -> DbResult<usize> {
        let conn = self;
        let old = token_withdrawals::table
            .select(token_withdrawals::id)
            .filter(token_withdrawals::created_at.lt(before))
            .order(token_withdrawals::created_at)
            .limit(most);
        let ids: Vec<i64> = on_db!(conn, old.load(conn).await)?;
        if ids.is_empty() {
            return Ok(0);
        }
        let old = token_withdrawals::table.filter(token_withdrawals::id.eq_any(ids));
        on_db!(conn, diesel::delete(old).execute(conn).await)
    }
}
