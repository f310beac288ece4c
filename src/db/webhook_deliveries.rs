//! Queries on `webhook_deliveries`: what endpoints were told, and are still to be told. Who sends it: `webhook_leases`.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Nullable, Text, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::readable::{Readable, Row, one, one_by_one, readable};
use super::schema::{webhook_deliveries, webhook_endpoints};
use crate::model::{DeliveryId, DeliveryStatus, EndpointId, EventType, Timestamp};

/// Its name where a row of it cannot be read.
pub(super) const WEBHOOK_DELIVERIES: &str = "webhook_deliveries";
/// Rows of one statement: a prepared statement takes so many values only.
const ROWS_A_STATEMENT: usize = 1_000;

/// A delivery that is about to be inserted.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = webhook_deliveries)]
pub struct NewDelivery {
    endpoint_id: EndpointId,
    outbox_id: i64,
    event_id: Vec<u8>,
    event_type: EventType,
    object: Vec<u8>,
    status: DeliveryStatus,
    due_at: Option<Timestamp>,
    created_at: Timestamp,
}

impl NewDelivery {
    /// Of an event of number `outbox_id`, which happened `at`; to be tried from `due_at` on.
    pub fn new(
        endpoint: EndpointId,
        outbox_id: i64,
        event_type: EventType,
        (event, object): (Uuid, Uuid),
        at: Timestamp,
        due_at: Timestamp,
    ) -> Self {
        Self {
            endpoint_id: endpoint,
            outbox_id,
            event_id: event.as_bytes().to_vec(),
            event_type,
            object: object.as_bytes().to_vec(),
            status: DeliveryStatus::Pending,
            due_at: Some(due_at),
            // Kept as long as the event itself.
            created_at: at,
        }
    }
}

/// A delivery, as a list shows it.
#[derive(Debug, Clone, Queryable)]
pub struct WebhookDelivery {
    /// Its id.
    pub id: DeliveryId,
    event_id: Vec<u8>,
    /// What has happened.
    pub event_type: EventType,
    object: Vec<u8>,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Tries that ended.
    pub tries: i64,
    /// When the next one may begin.
    pub due_at: Option<Timestamp>,
    /// What the last one was answered.
    pub last_status: Option<i64>,
    /// Why it was no success.
    pub last_error: Option<String>,
    /// When that was.
    pub last_try_at: Option<Timestamp>,
    /// When it was taken.
    pub delivered_at: Option<Timestamp>,
    /// When the event happened.
    pub created_at: Timestamp,
}

impl WebhookDelivery {
    /// The event's id.
    pub fn event(&self) -> Uuid {
        Uuid::from_slice(&self.event_id).unwrap_or_default()
    }

    /// The id of what it happened to. Of a product, its number.
    pub fn object(&self) -> Uuid {
        Uuid::from_slice(&self.object).unwrap_or_default()
    }
}

type DeliveryColumns = (
    BigInt,
    Binary,
    Text,
    Binary,
    Text,
    BigInt,
    Nullable<SqlTimestamp>,
    Nullable<BigInt>,
    Nullable<Text>,
    Nullable<SqlTimestamp>,
    Nullable<SqlTimestamp>,
    SqlTimestamp,
);
one_by_one!(i64, WebhookDelivery, DeliveryColumns);

/// The columns of [`WebhookDelivery`], in its order.
#[diesel::dsl::auto_type]
fn delivery_columns() -> _ {
    (
        webhook_deliveries::id,
        webhook_deliveries::event_id,
        webhook_deliveries::event_type,
        webhook_deliveries::object,
        webhook_deliveries::status,
        webhook_deliveries::tries,
        webhook_deliveries::due_at,
        webhook_deliveries::last_status,
        webhook_deliveries::last_error,
        webhook_deliveries::last_try_at,
        webhook_deliveries::delivered_at,
        webhook_deliveries::created_at,
    )
}

impl DbConn {
    /// Inserts deliveries.
    pub async fn insert_deliveries(&mut self, mut rows: Vec<NewDelivery>) -> DbResult<()> {
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(ROWS_A_STATEMENT));
            match self {
                DbConn::MySql(conn) => {
                    let insert = diesel::insert_into(webhook_deliveries::table).values(&rows);
                    let inserted = insert.execute(&mut **conn).await;
                    diagnosed(&mut **conn, inserted).await?;
                }
                // See `insert_orders`.
                DbConn::Sqlite(conn) => {
                    let insert = move |conn: &mut SqliteConnection| {
                        let insert = diesel::insert_into(webhook_deliveries::table).values(&rows);
                        diesel::RunQueryDsl::execute(insert, conn)
                    };
                    let inserted = conn.spawn_blocking(insert).await;
                    diagnosed(&mut **conn, inserted).await?;
                }
            }
            rows = rest;
        }
        Ok(())
    }

    /// One delivery of an endpoint.
    pub async fn find_delivery(&mut self, endpoint: EndpointId, id: DeliveryId) -> DbResult<Option<WebhookDelivery>> {
        let conn = self;
        let query = webhook_deliveries::table
            .select(delivery_columns())
            .filter(webhook_deliveries::id.eq(id))
            .filter(webhook_deliveries::endpoint_id.eq(endpoint));
        let found: Option<Row<i64, WebhookDelivery>> = on_db!(conn, query.get_result(conn).await.optional())?;
        one(WEBHOOK_DELIVERIES, found)
    }

    /// The newest delivery of an endpoint of one event.
    pub async fn find_delivery_of(
        &mut self,
        endpoint: EndpointId,
        outbox_id: i64,
    ) -> DbResult<Option<WebhookDelivery>> {
        let conn = self;
        let query = webhook_deliveries::table
            .select(delivery_columns())
            .filter(webhook_deliveries::endpoint_id.eq(endpoint))
            .filter(webhook_deliveries::outbox_id.eq(outbox_id))
            .filter(webhook_deliveries::status.eq(DeliveryStatus::Pending))
            .order(webhook_deliveries::id.desc())
            .limit(1);
        let found: Option<Row<i64, WebhookDelivery>> = on_db!(conn, query.get_result(conn).await.optional())?;
        one(WEBHOOK_DELIVERIES, found)
    }

    /// Deliveries of an endpoint that stand there and have a smaller id than `before`, the newest first.
    pub async fn list_deliveries(
        &mut self,
        endpoint: EndpointId,
        status: DeliveryStatus,
        before: Option<DeliveryId>,
        limit: i64,
    ) -> DbResult<Readable<WebhookDelivery, i64>> {
        let conn = self;
        let query = webhook_deliveries::table
            .select(delivery_columns())
            .filter(webhook_deliveries::endpoint_id.eq(endpoint))
            .filter(webhook_deliveries::status.eq(status))
            .filter(webhook_deliveries::id.lt(before.map_or(i64::MAX, DeliveryId::get)))
            .order(webhook_deliveries::id.desc())
            .limit(limit);
        let found: Vec<Row<i64, WebhookDelivery>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable(WEBHOOK_DELIVERIES, found))
    }

    /// Has a delivery tried at once, whatever came of it before; one that somebody is trying stays as it is.
    pub async fn retry_delivery(&mut self, id: DeliveryId, now: Timestamp) -> DbResult<()> {
        let conn = self;
        let row =
            webhook_deliveries::table.filter(webhook_deliveries::id.eq(id)).filter(webhook_deliveries::lease.is_null());
        let set = (
            webhook_deliveries::status.eq(DeliveryStatus::Pending),
            webhook_deliveries::due_at.eq(Some(now)),
            webhook_deliveries::delivered_at.eq(None::<Timestamp>),
        );
        on_db!(conn, diesel::update(row).set(set).execute(conn).await)?;
        Ok(())
    }

    /// Deliveries of an endpoint that are due by `now`, counted up to `most`.
    pub async fn count_due_deliveries(&mut self, endpoint: EndpointId, now: Timestamp, most: i64) -> DbResult<usize> {
        let conn = self;
        let query = webhook_deliveries::table
            .select(webhook_deliveries::id)
            .filter(webhook_deliveries::endpoint_id.eq(endpoint))
            .filter(webhook_deliveries::due_at.le(now))
            .limit(most);
        let found: Vec<i64> = on_db!(conn, query.load(conn).await)?;
        Ok(found.len())
    }

    /// Deliveries of events of before that time, the oldest first.
    pub async fn old_deliveries(&mut self, before: Timestamp, most: i64) -> DbResult<Vec<i64>> {
        let conn = self;
        let old = webhook_deliveries::table
            .select(webhook_deliveries::id)
            .filter(webhook_deliveries::created_at.lt(before))
            .order(webhook_deliveries::created_at)
            .limit(most);
        on_db!(conn, old.load(conn).await)
    }

    /// Deliveries of endpoints that were deleted.
    pub async fn orphaned_deliveries(&mut self, most: i64) -> DbResult<Vec<i64>> {
        let conn = self;
        let known = webhook_endpoints::table.select(webhook_endpoints::id);
        let gone = webhook_deliveries::table
            .select(webhook_deliveries::endpoint_id)
            .distinct()
            .filter(webhook_deliveries::endpoint_id.ne_all(known));
        let gone: Vec<i64> = on_db!(conn, gone.load(conn).await)?;
        let orphaned = webhook_deliveries::table
            .select(webhook_deliveries::id)
            .filter(webhook_deliveries::endpoint_id.eq_any(gone))
            .limit(most);
        on_db!(conn, orphaned.load(conn).await)
    }

    /// Forgets deliveries. Safe on several instances at once.
    pub async fn forget_deliveries(&mut self, ids: &[i64]) -> DbResult<usize> {
        if ids.is_empty() {
            return Ok(0);
        }
        let conn = self;
        let rows = webhook_deliveries::table.filter(webhook_deliveries::id.eq_any(ids));
        on_db!(conn, diesel::delete(rows).execute(conn).await)
    }
}
