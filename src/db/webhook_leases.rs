//! Queries on `webhook_deliveries` of those who send them.
//!
//! Who sends a delivery has a lease of it: until that runs out nobody else does, and only who has it may note what came of it.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Nullable, Text, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::readable::{Row, one_by_one, readable};
use super::schema::{outbox, webhook_deliveries};
use super::webhook_deliveries::WEBHOOK_DELIVERIES;
use crate::model::{DeliveryId, DeliveryStatus, EndpointId, EventType, Timestamp};

/// A delivery that is to be sent, with what is known of its event.
#[derive(Debug, Clone, Queryable)]
pub struct ClaimedDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// Number of the event's row, its `sequence`.
    pub sequence: i64,
    event_id: Vec<u8>,
    /// What has happened.
    pub event_type: EventType,
    object: Vec<u8>,
    /// Tries that ended.
    pub tries: i64,
    /// When it happened; `None`: the event is gone.
    pub at: Option<Timestamp>,
    /// The object as it was then, where it cannot be read later.
    pub snapshot: Option<String>,
}

impl ClaimedDelivery {
    /// The event's id.
    pub fn event(&self) -> Uuid {
        Uuid::from_slice(&self.event_id).unwrap_or_default()
    }

    /// The id of what it happened to. Of a product, its number.
    pub fn object(&self) -> Uuid {
        Uuid::from_slice(&self.object).unwrap_or_default()
    }
}

/// What came of a try.
#[derive(Debug, Clone)]
pub struct TryResult {
    /// Of which delivery.
    pub id: DeliveryId,
    /// Where it stands now.
    pub status: DeliveryStatus,
    /// When it is tried again.
    pub due_at: Option<Timestamp>,
    /// What was answered.
    pub answer: Option<u16>,
    /// Why it was no success.
    pub error: Option<String>,
}

type ClaimedColumns = (BigInt, BigInt, Binary, Text, Binary, BigInt, Nullable<SqlTimestamp>, Nullable<Text>);
one_by_one!(i64, ClaimedDelivery, ClaimedColumns);

impl DbConn {
    /// Gets a lease until `until` of some deliveries of an endpoint that are due by `now`.
    pub async fn claim_deliveries(
        &mut self,
        endpoint: EndpointId,
        lease: Uuid,
        (now, until): (Timestamp, Timestamp),
        limit: i64,
    ) -> DbResult<Vec<ClaimedDelivery>> {
        let due = webhook_deliveries::table
            .select(webhook_deliveries::id)
            .filter(webhook_deliveries::endpoint_id.eq(endpoint))
            .filter(webhook_deliveries::due_at.le(now))
            .order(webhook_deliveries::due_at)
            .limit(limit);
        let ids: Vec<i64> = match self {
            DbConn::MySql(conn) => {
                let found = due.for_update().skip_locked().load(&mut **conn).await;
                diagnosed(&mut **conn, found).await?
            }
            DbConn::Sqlite(conn) => {
                let found = due.load(&mut **conn).await;
                diagnosed(&mut **conn, found).await?
            }
        };
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let conn = self;
        let rows = webhook_deliveries::table.filter(webhook_deliveries::id.eq_any(&ids));
        let set =
            (webhook_deliveries::due_at.eq(Some(until)), webhook_deliveries::lease.eq(Some(lease.as_bytes().to_vec())));
        on_db!(conn, diesel::update(rows).set(set).execute(conn).await)?;
        let query = webhook_deliveries::table
            .left_join(outbox::table.on(outbox::id.eq(webhook_deliveries::outbox_id)))
            .select((
                webhook_deliveries::id,
                webhook_deliveries::outbox_id,
                webhook_deliveries::event_id,
                webhook_deliveries::event_type,
                webhook_deliveries::object,
                webhook_deliveries::tries,
                outbox::created_at.nullable(),
                outbox::snapshot.nullable(),
            ))
            .filter(webhook_deliveries::id.eq_any(&ids))
            .order(webhook_deliveries::id);
        let found: Vec<Row<i64, ClaimedDelivery>> = on_db!(conn, query.load(conn).await)?;
        let found = readable(WEBHOOK_DELIVERIES, found);
        let is_read = |id: &i64| found.rows.iter().any(|row| row.id.get() == *id);
        let spoiled: Vec<i64> = found.keys.iter().copied().filter(|id| !is_read(id)).collect();
        if !spoiled.is_empty() {
            // They would be found first again and again.
            let rows = webhook_deliveries::table.filter(webhook_deliveries::id.eq_any(&spoiled));
            let set = webhook_deliveries::due_at.eq(None::<Timestamp>);
            on_db!(conn, diesel::update(rows).set(set).execute(conn).await)?;
        }
        Ok(found.rows)
    }

    /// Notes what came of tries, of those deliveries whose lease nobody else has got since.
    pub async fn note_tries(&mut self, results: &[TryResult], lease: Uuid, now: Timestamp) -> DbResult<()> {
        let conn = self;
        // All that were taken alike together, for nearly all are.
        let mut taken: Vec<(Option<u16>, Vec<i64>)> = Vec::new();
        for result in results.iter().filter(|result| result.status == DeliveryStatus::Delivered) {
            match taken.iter_mut().find(|(answer, _)| *answer == result.answer) {
                Some((_, ids)) => ids.push(result.id.get()),
                None => taken.push((result.answer, vec![result.id.get()])),
            }
        }
        let held = webhook_deliveries::lease.eq(lease.as_bytes().to_vec());
        let ended = (
            webhook_deliveries::tries.eq(webhook_deliveries::tries + 1),
            webhook_deliveries::lease.eq(None::<Vec<u8>>),
            webhook_deliveries::last_try_at.eq(Some(now)),
        );
        for (answer, ids) in taken {
            let rows = webhook_deliveries::table.filter(webhook_deliveries::id.eq_any(ids)).filter(held.clone());
            let set = (
                ended.clone(),
                webhook_deliveries::status.eq(DeliveryStatus::Delivered),
                webhook_deliveries::due_at.eq(None::<Timestamp>),
                webhook_deliveries::last_status.eq(answer.map(i64::from)),
                webhook_deliveries::last_error.eq(None::<String>),
                webhook_deliveries::delivered_at.eq(Some(now)),
            );
            on_db!(conn, diesel::update(rows).set(set).execute(conn).await)?;
        }
        for result in results.iter().filter(|result| result.status != DeliveryStatus::Delivered) {
            let row = webhook_deliveries::table.filter(webhook_deliveries::id.eq(result.id)).filter(held.clone());
            let set = (
                ended.clone(),
                webhook_deliveries::status.eq(result.status),
                webhook_deliveries::due_at.eq(result.due_at),
                webhook_deliveries::last_status.eq(result.answer.map(i64::from)),
                webhook_deliveries::last_error.eq(result.error.clone()),
            );
            on_db!(conn, diesel::update(row).set(set).execute(conn).await)?;
        }
        Ok(())
    }

    /// Gives back leases of deliveries that were not tried: they are due at once.
    pub async fn give_back(&mut self, ids: &[DeliveryId], lease: Uuid, now: Timestamp) -> DbResult<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let conn = self;
        let rows = webhook_deliveries::table
            .filter(webhook_deliveries::id.eq_any(ids))
            .filter(webhook_deliveries::lease.eq(lease.as_bytes().to_vec()));
        let set = (webhook_deliveries::due_at.eq(Some(now)), webhook_deliveries::lease.eq(None::<Vec<u8>>));
        on_db!(conn, diesel::update(rows).set(set).execute(conn).await)?;
        Ok(())
    }
}
