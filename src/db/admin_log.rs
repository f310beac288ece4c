//! Queries on `admin_log`: what administrators changed.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;
use serde::Serialize;
use utoipa::ToSchema;

use super::conn::{DbConn, on_db};
use super::error::DbResult;
use super::readable::{Readable, Row, one_by_one, readable};
use super::schema::admin_log;
use crate::model::{Timestamp, UserId};

/// Something that an administrator changes.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = admin_log)]
pub struct NewAdminAction {
    /// Who.
    pub user_id: UserId,
    /// What the account is called; `None`: it is one of the shop's own directory.
    pub user_name: Option<String>,
    /// What was done, as a sentence.
    pub action: String,
    /// To what, such as `product 7`.
    pub object: String,
    /// What from what to what.
    pub changes: String,
    /// When.
    pub changed_at: Timestamp,
    /// Why.
    pub reason: Option<String>,
}

/// Something that an administrator changed.
#[derive(Debug, Clone, Serialize, Queryable, ToSchema)]
pub struct AdminAction {
    /// Its number.
    pub id: i64,
    /// Who.
    pub user_id: UserId,
    /// What the account was called then.
    #[schema(required)]
    pub username: Option<String>,
    /// What was done, as a sentence.
    pub action: String,
    /// To what, such as `product 7`.
    pub object: String,
    /// What from what to what.
    pub changes: String,
    /// When.
    pub changed_at: Timestamp,
    /// Why, if they said so.
    #[schema(required)]
    pub reason: Option<String>,
}

one_by_one!(i64, AdminAction, (BigInt, BigInt, Nullable<Text>, Text, Text, Text, SqlTimestamp, Nullable<Text>));

impl DbConn {
    /// Notes what an administrator changes, in the transaction that changes it.
    pub async fn log_admin_action(&mut self, action: &NewAdminAction) -> DbResult<()> {
        let conn = self;
        on_db!(conn, diesel::insert_into(admin_log::table).values(action).execute(conn).await)?;
        Ok(())
    }

    /// What administrators changed, the newest first; `before`: only what has a smaller number; `object`: only what was done to it.
    pub async fn list_admin_actions(
        &mut self,
        before: Option<i64>,
        object: Option<String>,
        limit: i64,
    ) -> DbResult<Readable<AdminAction, i64>> {
        let conn = self;
        let query = admin_log::table
            .select(admin_log::all_columns)
            .filter(admin_log::id.lt(before.unwrap_or(i64::MAX)))
            .order(admin_log::id.desc())
            .limit(limit);
        let found: Vec<Row<i64, AdminAction>> = match object {
            None => on_db!(conn, query.load(conn).await)?,
            Some(object) => {
                let query = query.filter(admin_log::object.eq(object));
                on_db!(conn, query.load(conn).await)?
            }
        };
        Ok(readable("admin_log", found))
    }
}
