//! Queries on `outbox`: what has happened, and whom it is still to be told.
//!
//! The transaction that changes something also writes the row that says so. So an event is never told of a change that was rolled
//! back, and no change goes untold. A change of a product or an order holds the lock of the product's row, so of one object the later
//! event has the greater number. The event of a new order is written before that lock is taken, which is safe: nobody can have changed an
//! order that is not committed yet. Where nobody wants to know, there is no row.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Text, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::packed_ids::{pack, unpack};
use super::readable::{Row, one_by_one, readable};
use super::schema::outbox;
use crate::model::{EventType, OrderId, Payment, PaymentId, ProductId, Timestamp};

/// Its name where a row of it cannot be read.
const OUTBOX: &str = "outbox";

/// Events that are about to be written down, of objects to which the same happens.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = outbox)]
pub(super) struct NewEvents {
    event_type: EventType,
    event_key: Vec<u8>,
    objects: Vec<u8>,
    snapshot: Option<String>,
    pending: Option<bool>,
    created_at: Timestamp,
}

impl NewEvents {
    fn new(event_type: EventType, objects: impl IntoIterator<Item = Uuid>, at: Timestamp) -> Self {
        let event_key = Uuid::now_v7().as_bytes().to_vec();
        Self { event_type, event_key, objects: pack(objects), snapshot: None, pending: Some(true), created_at: at }
    }

    /// Of orders. `None`: there are none.
    pub(super) fn of_orders(
        event_type: EventType,
        orders: impl IntoIterator<Item = OrderId>,
        at: Timestamp,
    ) -> Option<Self> {
        let events = Self::new(event_type, orders.into_iter().map(Uuid::from), at);
        Some(events).filter(|events| !events.objects.is_empty())
    }
}

/// Events that are written down and not yet told everybody.
#[derive(Debug, Clone, Queryable)]
pub struct PendingEvents {
    /// Number of the row; `sequence` of each of them.
    pub id: i64,
    /// What has happened.
    pub event_type: EventType,
    key: Vec<u8>,
    objects: Vec<u8>,
    /// How many of [`PendingEvents::all`] are done.
    pub fanned_out: i64,
    /// When it happened.
    pub at: Timestamp,
}

one_by_one!(i64, PendingEvents, (BigInt, Text, Binary, Binary, BigInt, SqlTimestamp));

impl PendingEvents {
    /// All objects: the id of the event, and the object's.
    pub fn all(&self) -> Vec<(Uuid, Uuid)> {
        let key = Uuid::from_slice(&self.key).unwrap_or_default();
        let event = |(place, object)| (event_id(key, place), object);
        unpack(&self.objects).into_iter().enumerate().map(event).collect()
    }
}

/// Its id, the same at each try and for each endpoint.
fn event_id(key: Uuid, place: usize) -> Uuid {
    Uuid::from_u128(key.as_u128().wrapping_add(place as u128))
}

/// The id of a product where others have a UUID. No UUID begins with so many zeros.
fn product_object(id: i64) -> Uuid {
    Uuid::from_u128(id as u128)
}

/// [`DbConn::put_in_outbox`] of one row in the words of synchronous Diesel.
pub(super) fn put_in_outbox_blocking(conn: &mut SqliteConnection, events: &NewEvents) -> QueryResult<()> {
    let insert = diesel::insert_into(outbox::table).values(events);
    diesel::RunQueryDsl::execute(insert, conn).map(drop)
}

impl DbConn {
    pub(super) async fn put_in_outbox(&mut self, rows: Vec<NewEvents>) -> DbResult<()> {
        if rows.is_empty() {
            return Ok(());
        }
        match self {
            DbConn::MySql(conn) => {
                let inserted = diesel::insert_into(outbox::table).values(&rows).execute(&mut **conn).await;
                diagnosed(&mut **conn, inserted).await?;
            }
            // See `insert_orders`.
            DbConn::Sqlite(conn) => {
                let insert = move |conn: &mut SqliteConnection| {
                    diesel::RunQueryDsl::execute(diesel::insert_into(outbox::table).values(&rows), conn)
                };
                let inserted = conn.spawn_blocking(insert).await;
                diagnosed(&mut **conn, inserted).await?;
            }
        }
        Ok(())
    }

    /// Notes what has become of orders, if somebody wants to know. In the transaction that changes them.
    pub(super) async fn tell_of_orders(
        &mut self,
        event_type: EventType,
        orders: &[OrderId],
        at: Timestamp,
    ) -> DbResult<()> {
        if !self.is_wanted(event_type) {
            return Ok(());
        }
        self.put_in_outbox(NewEvents::of_orders(event_type, orders.iter().copied(), at).into_iter().collect()).await
    }

    /// The same of a product, as it is now.
    pub(super) async fn tell_of_product(&mut self, event_type: EventType, id: ProductId) -> DbResult<()> {
        if !self.is_wanted(event_type) {
            return Ok(());
        }
        let Some(product) = self.find_product(id).await? else { return Ok(()) };
        let at = self.now().await?;
        let snapshot = serde_json::to_string(&product).ok();
        let events = NewEvents::new(event_type, [product_object(id.get())], at);
        self.put_in_outbox(vec![NewEvents { snapshot, ..events }]).await
    }

    /// The same of payments, as they are now.
    pub(super) async fn tell_of_payments(
        &mut self,
        event_type: EventType,
        ids: &[PaymentId],
        at: Timestamp,
    ) -> DbResult<()> {
        if ids.is_empty() || !self.is_wanted(event_type) {
            return Ok(());
        }
        let row = |payment: Payment| {
            let snapshot = serde_json::to_string(&payment).ok();
            NewEvents { snapshot, ..NewEvents::new(event_type, [Uuid::from(payment.id)], at) }
        };
        let rows = self.payments(ids).await?.into_iter().map(row).collect();
        self.put_in_outbox(rows).await
    }

    /// Some events that are not told everybody yet, the oldest first. Nobody else gets them before this transaction ends.
    pub async fn claim_pending_events(&mut self, limit: i64) -> DbResult<Vec<PendingEvents>> {
        let query = outbox::table
            .select((
                outbox::id,
                outbox::event_type,
                outbox::event_key,
                outbox::objects,
                outbox::fanned_out,
                outbox::created_at,
            ))
            .filter(outbox::pending.eq(true))
            .order(outbox::id)
            .limit(limit);
        let found: Vec<Row<i64, PendingEvents>> = match self {
            DbConn::MySql(conn) => {
                let found = query.for_update().skip_locked().load(&mut **conn).await;
                diagnosed(&mut **conn, found).await?
            }
            DbConn::Sqlite(conn) => {
                let found = query.load(&mut **conn).await;
                diagnosed(&mut **conn, found).await?
            }
        };
        let found = readable(OUTBOX, found);
        let spoiled: Vec<i64> =
            found.keys.iter().copied().filter(|id| found.rows.iter().all(|row| row.id != *id)).collect();
        if !spoiled.is_empty() {
            // It would be found first again and again.
            self.end_events(&spoiled).await?;
        }
        Ok(found.rows)
    }

    /// Whether there are any.
    pub async fn has_pending_events(&mut self) -> DbResult<bool> {
        let conn = self;
        let query = outbox::table.select(outbox::id).filter(outbox::pending.eq(true)).limit(1);
        let found: Option<i64> = on_db!(conn, query.get_result(conn).await.optional())?;
        Ok(found.is_some())
    }

    /// Notes of how many objects of a row everybody has been told.
    pub async fn advance_events(&mut self, id: i64, fanned_out: i64) -> DbResult<()> {
        let conn = self;
        let row = outbox::table.filter(outbox::id.eq(id));
        let set = outbox::fanned_out.eq(fanned_out);
        on_db!(conn, diesel::update(row).set(set).execute(conn).await)?;
        Ok(())
    }

    /// Notes that everybody has been told of all objects of these rows.
    pub async fn end_events(&mut self, ids: &[i64]) -> DbResult<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let conn = self;
        let rows = outbox::table.filter(outbox::id.eq_any(ids));
        on_db!(conn, diesel::update(rows).set(outbox::pending.eq(None::<bool>)).execute(conn).await)?;
        Ok(())
    }

    /// Writes down an event for one endpoint alone: number, id and object of it.
    pub async fn insert_single_event(
        &mut self,
        event_type: EventType,
        object: i64,
        snapshot: String,
        at: Timestamp,
    ) -> DbResult<(i64, Uuid, Uuid)> {
        let (event, object) = (Uuid::now_v7(), product_object(object));
        let row = NewEvents {
            event_key: event.as_bytes().to_vec(),
            snapshot: Some(snapshot),
            pending: None,
            ..NewEvents::new(event_type, [object], at)
        };
        self.put_in_outbox(vec![row]).await?;
        let id = self.last_inserted().await?;
        Ok((id, event, object))
    }

    /// Looks at events with greater ids than `after`, at most so many, and forgets those of before that time that were told: the last
    /// one that was looked at, and how many were forgotten. `None`: there were no more. An index of times would cost each transaction that writes
    /// orders a page; ids grow with time, but for clocks that jump.
    pub async fn forget_told_events(
        &mut self,
        before: Timestamp,
        after: i64,
        most: i64,
    ) -> DbResult<Option<(i64, usize)>> {
        let conn = self;
        let query = outbox::table
            .select((outbox::id, outbox::created_at.lt(before).and(outbox::pending.is_null())))
            .filter(outbox::id.gt(after))
            .order(outbox::id)
            .limit(most);
        let found: Vec<(i64, bool)> = on_db!(conn, query.load(conn).await)?;
        let Some((last, _)) = found.last().copied() else { return Ok(None) };
        let old: Vec<i64> = found.into_iter().filter(|(_, is_old)| *is_old).map(|(id, _)| id).collect();
        if !old.is_empty() {
            on_db!(conn, diesel::delete(outbox::table.filter(outbox::id.eq_any(&old))).execute(conn).await)?;
        }
        Ok(Some((last, old.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_of_a_row_is_an_event_with_an_id_of_its_own() {
        let orders = [(); 3].map(|()| OrderId::draw(7.try_into().unwrap()));
        let at = Timestamp::now();
        let new = NewEvents::of_orders(EventType::OrderCreated, orders, at).unwrap();
        let row = PendingEvents {
            id: 5,
            event_type: new.event_type,
            key: new.event_key,
            objects: new.objects,
            fanned_out: 0,
            at,
        };
        let all = row.all();
        assert_eq!(all.iter().map(|(_, object)| *object).collect::<Vec<_>>(), orders.map(Uuid::from));
        assert!(all.iter().map(|(event, _)| event).is_sorted_by(|a, b| a < b), "{all:?}");
        assert_eq!(row.all(), all, "the same each time");
        assert!(NewEvents::of_orders(EventType::OrderPaid, [], at).is_none());
    }
}
