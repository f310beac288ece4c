//! Queries on `webhook_endpoints`: where the shop is told of what happens.

use std::fmt;

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::{DbError, DbResult};
use super::readable::{Row, one, one_by_one, readable};
use super::schema::webhook_endpoints;
use crate::model::{EndpointId, EventTypes, Timestamp};

/// Its name where a row of it cannot be read.
const WEBHOOK_ENDPOINTS: &str = "webhook_endpoints";

/// When the first of an endpoint's deliveries is due.
const NEXT_DUE: &str = "(SELECT MIN(webhook_deliveries.due_at) FROM webhook_deliveries \
    WHERE webhook_deliveries.endpoint_id = webhook_endpoints.id AND webhook_deliveries.due_at IS NOT NULL)";

/// Where the shop is told of what happens.
#[derive(Clone, Queryable)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Its address.
    pub url: String,
    events: String,
    /// What it is for.
    pub description: String,
    /// Whether it is told anything now.
    pub active: bool,
    /// The key of its signatures, `whsec_...`.
    pub secret: String,
    old_secret: Option<String>,
    /// Until when the secret of before signs, too.
    pub old_secret_until: Option<Timestamp>,
    /// Of the first failure since the last success.
    pub failing_since: Option<Timestamp>,
    /// Why it was switched off by itself.
    pub off_reason: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Without its secrets.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("id", &self.id).field("active", &self.active).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// What it is told of.
    pub fn events(&self) -> EventTypes {
        EventTypes::from_stored(&self.events)
    }

    /// The secrets that sign at that time, the newest first.
    pub fn secrets_at(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        let old = self.old_secret.as_deref().filter(|_| self.old_secret_until.is_some_and(|until| now < until));
        std::iter::once(self.secret.as_str()).chain(old)
    }
}

/// An endpoint that is about to be inserted.
#[derive(Clone, Insertable)]
#[diesel(table_name = webhook_endpoints)]
pub struct NewEndpoint {
    /// Its address.
    pub url: String,
    /// What it is told of, as [`EventTypes::stored`] has it.
    pub events: String,
    /// What it is for.
    pub description: String,
    /// Whether it is told anything from now on.
    pub active: bool,
    /// The key of its signatures.
    pub secret: String,
    /// When it is made.
    pub created_at: Timestamp,
    /// The same.
    pub updated_at: Timestamp,
}

/// What is set of an endpoint; `None` leaves a column as it is.
#[derive(Clone, Default, AsChangeset)]
#[diesel(table_name = webhook_endpoints)]
pub struct EndpointChange {
    /// Its address.
    pub url: Option<String>,
    /// What it is told of, as [`EventTypes::stored`] has it.
    pub events: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it is told anything.
    pub active: Option<bool>,
    /// The key of its signatures.
    pub secret: Option<String>,
    /// The key of before.
    pub old_secret: Option<Option<String>>,
    /// Until when that signs, too.
    pub old_secret_until: Option<Option<Timestamp>>,
    /// Of the first failure since the last success.
    pub failing_since: Option<Option<Timestamp>>,
    /// Why it was switched off by itself.
    pub off_reason: Option<Option<String>>,
    /// When it is changed.
    pub updated_at: Option<Timestamp>,
}

/// The types of the columns of [`Endpoint`].
type EndpointColumns = (
    BigInt,
    Text,
    Text,
    Text,
    Bool,
    Text,
    Nullable<Text>,
    Nullable<SqlTimestamp>,
    Nullable<SqlTimestamp>,
    Nullable<Text>,
    SqlTimestamp,
    SqlTimestamp,
);
type WithNextDue = (Endpoint, Option<Timestamp>);
one_by_one!(i64, Endpoint, EndpointColumns);
one_by_one!(i64, WithNextDue, (EndpointColumns, Nullable<SqlTimestamp>));

impl DbConn {
    /// Inserts an endpoint.
    pub async fn insert_endpoint(&mut self, endpoint: &NewEndpoint) -> DbResult<EndpointId> {
        let conn = self;
        on_db!(conn, diesel::insert_into(webhook_endpoints::table).values(endpoint).execute(conn).await)?;
        let id = conn.last_inserted().await?;
        let unreadable = |problem| DbError::Unreadable { table: WEBHOOK_ENDPOINTS, row: "new".to_owned(), problem };
        EndpointId::from_stored(id).map_err(unreadable)
    }

    /// How many there are.
    pub async fn count_endpoints(&mut self) -> DbResult<i64> {
        let conn = self;
        on_db!(conn, webhook_endpoints::table.count().get_result(conn).await)
    }

    /// One endpoint.
    pub async fn find_endpoint(&mut self, id: EndpointId) -> DbResult<Option<Endpoint>> {
        let conn = self;
        let query =
            webhook_endpoints::table.select(webhook_endpoints::all_columns).filter(webhook_endpoints::id.eq(id));
        let found: Option<Row<i64, Endpoint>> = on_db!(conn, query.get_result(conn).await.optional())?;
        one(WEBHOOK_ENDPOINTS, found)
    }

    /// One endpoint, whose row stays locked until the transaction ends. In SQLite a transaction that writes has locked everything.
    pub async fn lock_endpoint(&mut self, id: EndpointId) -> DbResult<Option<Endpoint>> {
        let query =
            webhook_endpoints::table.select(webhook_endpoints::all_columns).filter(webhook_endpoints::id.eq(id));
        let found: Option<Row<i64, Endpoint>> = match self {
            DbConn::MySql(conn) => {
                let found = query.for_update().get_result(&mut **conn).await.optional();
                diagnosed(&mut **conn, found).await?
            }
            DbConn::Sqlite(conn) => {
                let found = query.get_result(&mut **conn).await.optional();
                diagnosed(&mut **conn, found).await?
            }
        };
        one(WEBHOOK_ENDPOINTS, found)
    }

    /// All endpoints, the newest first.
    pub async fn list_endpoints(&mut self) -> DbResult<Vec<Endpoint>> {
        let conn = self;
        let query = webhook_endpoints::table.select(webhook_endpoints::all_columns).order(webhook_endpoints::id.desc());
        let found: Vec<Row<i64, Endpoint>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable(WEBHOOK_ENDPOINTS, found).rows)
    }

    /// All endpoints, and when the first delivery of each is due.
    pub async fn endpoints_with_next_due(&mut self) -> DbResult<Vec<(Endpoint, Option<Timestamp>)>> {
        let conn = self;
        let next_due = sql::<Nullable<SqlTimestamp>>(NEXT_DUE);
        let query = webhook_endpoints::table.select((webhook_endpoints::all_columns, next_due));
        let found: Vec<Row<i64, WithNextDue>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable(WEBHOOK_ENDPOINTS, found).rows)
    }

    /// Changes an endpoint. False: there is no such endpoint.
    pub async fn change_endpoint(&mut self, id: EndpointId, change: &EndpointChange) -> DbResult<bool> {
        let conn = self;
        let row = webhook_endpoints::table.filter(webhook_endpoints::id.eq(id));
        Ok(on_db!(conn, diesel::update(row).set(change).execute(conn).await)? == 1)
    }

    /// Deletes an endpoint; what is left of its deliveries, [`DbConn::orphaned_deliveries`] finds. False: there is none.
    pub async fn delete_endpoint(&mut self, id: EndpointId) -> DbResult<bool> {
        let conn = self;
        let row = webhook_endpoints::table.filter(webhook_endpoints::id.eq(id));
        Ok(on_db!(conn, diesel::delete(row).execute(conn).await)? == 1)
    }

    /// Notes that an endpoint took something, if it was failing.
    pub async fn endpoint_works(&mut self, id: EndpointId) -> DbResult<()> {
        let conn = self;
        let failing = webhook_endpoints::table
            .filter(webhook_endpoints::id.eq(id))
            .filter(webhook_endpoints::failing_since.is_not_null());
        let set = webhook_endpoints::failing_since.eq(None::<Timestamp>);
        on_db!(conn, diesel::update(failing).set(set).execute(conn).await)?;
        Ok(())
    }

    /// Notes that an endpoint has failed, and since when; `None`: there is no such endpoint.
    pub async fn endpoint_fails(&mut self, id: EndpointId, now: Timestamp) -> DbResult<Option<Timestamp>> {
        let conn = self;
        let row = webhook_endpoints::table.filter(webhook_endpoints::id.eq(id));
        let works = row.filter(webhook_endpoints::failing_since.is_null());
        let set = webhook_endpoints::failing_since.eq(Some(now));
        on_db!(conn, diesel::update(works).set(set).execute(conn).await)?;
        let since: Option<Option<Timestamp>> =
            on_db!(conn, row.select(webhook_endpoints::failing_since).get_result(conn).await.optional())?;
        Ok(since.flatten())
    }

    /// Switches an endpoint off for a reason of its own. False: it was off before.
    pub async fn switch_endpoint_off(&mut self, id: EndpointId, reason: &str, now: Timestamp) -> DbResult<bool> {
        let conn = self;
        let row =
            webhook_endpoints::table.filter(webhook_endpoints::id.eq(id)).filter(webhook_endpoints::active.eq(true));
        let set = (
            webhook_endpoints::active.eq(false),
            webhook_endpoints::off_reason.eq(Some(reason)),
            webhook_endpoints::updated_at.eq(now),
        );
        Ok(on_db!(conn, diesel::update(row).set(set).execute(conn).await)? == 1)
    }
}
