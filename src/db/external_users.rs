//! Queries on `external_users`: the numbers by which users of the shop's own directory are known here.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Binary, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::readable::{Row, one_by_one, readable};
use super::schema::external_users;
use crate::model::{Timestamp, UserId};

/// A user of the shop's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExternalUser {
    /// The number.
    pub id: UserId,
    /// Seconds since 1970; tokens issued earlier were withdrawn.
    pub tokens_valid_from: i64,
}

/// Number, subject, and since when tokens are good.
type UserRow = (UserId, Vec<u8>, i64);
one_by_one!(i64, UserRow, (BigInt, Binary, BigInt));

impl DbConn {
    /// Those of an issuer's subjects that have a number.
    pub async fn find_external_users(
        &mut self,
        issuer: &str,
        subjects: &[String],
    ) -> DbResult<HashMap<String, ExternalUser>> {
        let conn = self;
        let subjects: Vec<&[u8]> = subjects.iter().map(|subject| subject.as_bytes()).collect();
        let query = external_users::table
            .select((external_users::id, external_users::subject, external_users::tokens_valid_from))
            .filter(external_users::issuer.eq(issuer.as_bytes()))
            .filter(external_users::subject.eq_any(subjects));
        let found: Vec<Row<i64, UserRow>> = on_db!(conn, query.load(conn).await)?;
        let named = |(id, subject, tokens_valid_from)| {
            String::from_utf8(subject).ok().map(|subject| (subject, ExternalUser { id, tokens_valid_from }))
        };
        Ok(readable("external_users", found).rows.into_iter().filter_map(named).collect())
    }

    /// Gives numbers to those subjects that have none. In the order of the unique index, so that instances that do this
    /// at once wait for each other instead of blocking each other.
    pub async fn insert_external_users(&mut self, issuer: &str, mut subjects: Vec<String>) -> DbResult<()> {
        subjects.sort_unstable();
        let now = Timestamp::now();
        match self {
            Self::MySql(conn) => {
                let rows = vec!["(?, ?, ?)"; subjects.len()].join(", ");
                // Not IGNORE, which would also hide a subject that was cut.
                let insert = format!(
                    "INSERT INTO external_users (issuer, subject, created_at) VALUES {rows} ON DUPLICATE KEY UPDATE id = id"
                );
                let mut insert = sql_query(insert).into_boxed::<diesel::mysql::Mysql>();
                for subject in subjects {
                    insert = insert
                        .bind::<Binary, _>(issuer.as_bytes().to_vec())
                        .bind::<Binary, _>(subject.into_bytes())
                        .bind::<SqlTimestamp, _>(now);
                }
                let inserted = insert.execute(&mut **conn).await;
                diagnosed(&mut **conn, inserted).await?;
            }
            Self::Sqlite(conn) => {
                for subject in subjects {
                    let inserted = sql_query(
                        "INSERT INTO external_users (issuer, subject, created_at) VALUES (?, ?, ?) \
                         ON CONFLICT (issuer, subject) DO NOTHING",
                    )
                    .bind::<Binary, _>(issuer.as_bytes().to_vec())
                    .bind::<Binary, _>(subject.into_bytes())
                    .bind::<SqlTimestamp, _>(now)
                    .execute(&mut **conn)
                    .await;
                    diagnosed(&mut **conn, inserted).await?;
                }
            }
        }
        Ok(())
    }

    /// Withdraws a user's tokens issued before that second, unless this has been done; says whether it did.
    pub async fn withdraw_external_tokens(&mut self, id: UserId, valid_from: i64) -> DbResult<bool> {
        let conn = self;
        let user = external_users::table
            .filter(external_users::id.eq(id))
            .filter(external_users::tokens_valid_from.lt(valid_from));
        let change = external_users::tokens_valid_from.eq(valid_from);
        Ok(on_db!(conn, diesel::update(user).set(change).execute(conn).await)? > 0)
    }
}
