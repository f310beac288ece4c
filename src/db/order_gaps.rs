//! Queries on `order_lookup_gaps`: id ranges for which `order_lookup` may be older than `orders`.
//!
//! Whoever writes or changes orders adds gaps in the same transaction, one for all orders that were written together. Whoever fills the
//! lookup takes them away, and whoever reads it looks at the orders in them as well. A gap may cover too much, or be there twice.

use std::collections::BTreeSet;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::schema::order_lookup_gaps;
use crate::model::{OrderId, ProductId};

/// Orders that are written together and were drawn within this are one gap.
const TOGETHER_MS: i64 = 10_000;
/// Otherwise, neighbours that were drawn at most this long apart share a gap. Other orders may lie between them.
const APART_MS: i64 = 1_000;
/// The same for orders that change: between them lie orders that have not changed, and are many in a busy sale.
const CHANGED_APART_MS: i64 = 10;
/// Gaps so near to each other are looked at as one.
const APART_JOINED_MS: i64 = 10;
/// Characters that a gap's list of products may have. With more than that it says that it may have orders of any.
const MAX_PRODUCT_IDS: usize = 255;
/// Orders that change are in their buyers' lists, or in another gap.
const NO_PRODUCTS: &str = "[]";

/// A gap that is about to be added.
#[derive(Debug, Clone, PartialEq, Eq, Insertable)]
#[diesel(table_name = order_lookup_gaps)]
pub struct NewGap {
    first_order: Vec<u8>,
    last_order: Vec<u8>,
    orders: i64,
    changed: bool,
    product_ids: Option<String>,
}

/// A gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Its number, or those of several that became one.
    pub rows: Vec<i64>,
    /// The first order in it.
    pub first: Uuid,
    /// The last one.
    pub last: Uuid,
    /// How many they are, about.
    pub orders: i64,
    /// Some of them may stand in a list that is not theirs any more.
    pub changed: bool,
    /// Of these products it may have orders that are not in their buyers' lists; `None`: of any.
    pub products: Option<BTreeSet<i64>>,
}

impl NewGap {
    /// Of orders of these products that are written together: nearly always one.
    pub fn of_written(
        products: impl Iterator<Item = ProductId>,
        ids: impl Iterator<Item = OrderId> + Clone,
    ) -> Vec<Self> {
        let product_ids = product_ids(&products.map(ProductId::get).collect());
        let (mut bounds, mut orders) = (None, 0);
        for id in ids.clone() {
            bounds = Some(bounds.map_or((id, id), |(first, last): (OrderId, OrderId)| (first.min(id), last.max(id))));
            orders += 1;
        }
        match bounds {
            None => Vec::new(),
            Some((first, last)) if ms(last) - ms(first) <= TOGETHER_MS => {
                vec![Self::new(first, last, orders, false, product_ids)]
            }
            Some(_) => Self::of_neighbours(ids.collect(), APART_MS, false, &product_ids),
        }
    }

    /// Of orders that change together.
    pub fn of_changed(ids: Vec<OrderId>) -> Vec<Self> {
        Self::of_neighbours(ids, CHANGED_APART_MS, true, &Some(NO_PRODUCTS.to_owned()))
    }

    fn of_neighbours(mut ids: Vec<OrderId>, apart_ms: i64, changed: bool, product_ids: &Option<String>) -> Vec<Self> {
        ids.sort_unstable();
        let runs = ids.chunk_by(|before, after| ms(*after) - ms(*before) <= apart_ms);
        let gap =
            |run: &[OrderId]| Self::new(run[0], run[run.len() - 1], run.len() as i64, changed, product_ids.clone());
        runs.map(gap).collect()
    }

    fn new(first: OrderId, last: OrderId, orders: i64, changed: bool, product_ids: Option<String>) -> Self {
        let bytes = |id| Uuid::from(id).as_bytes().to_vec();
        Self { first_order: bytes(first), last_order: bytes(last), orders, changed, product_ids }
    }
}

impl Gap {
    /// Gaps that overlap, or between which hardly anything can lie, as one; the newest first, as they come.
    pub fn joined(gaps: Vec<Self>) -> Vec<Self> {
        let mut joined: Vec<Self> = Vec::new();
        for gap in gaps {
            match joined.last_mut().filter(|newer| unix_ms(newer.first) - unix_ms(gap.last) <= APART_JOINED_MS) {
                None => joined.push(gap),
                Some(newer) => {
                    newer.rows.extend(gap.rows);
                    newer.first = newer.first.min(gap.first);
                    newer.orders += gap.orders;
                    newer.changed |= gap.changed;
                    newer.products = newer.products.take().zip(gap.products).map(|(mut newer, older)| {
                        newer.extend(older);
                        newer
                    });
                }
            }
        }
        joined
    }
}

/// An id begins with its time.
fn unix_ms(id: Uuid) -> i64 {
    (id.as_u128() >> 80) as i64
}

fn ms(id: OrderId) -> i64 {
    id.drawn_at().unix_ms()
}

/// As a gap's row keeps them; `None`: they are too many.
fn product_ids(products: &BTreeSet<i64>) -> Option<String> {
    serde_json::to_string(products).ok().filter(|list| list.len() <= MAX_PRODUCT_IDS)
}

/// [`DbConn::insert_gaps`] in the words of synchronous Diesel.
pub(super) fn insert_gaps_blocking(conn: &mut SqliteConnection, gaps: &[NewGap]) -> QueryResult<()> {
    let insert = diesel::insert_into(order_lookup_gaps::table).values(gaps);
    diesel::RunQueryDsl::execute(insert, conn).map(drop)
}

/// Number, bounds, how many, whether they changed, and of which products.
type GapRow = (i64, Vec<u8>, Vec<u8>, i64, bool, Option<String>);

impl DbConn {
    /// Adds gaps.
    pub async fn insert_gaps(&mut self, gaps: Vec<NewGap>) -> DbResult<()> {
        if gaps.is_empty() {
            return Ok(());
        }
        match self {
            DbConn::MySql(conn) => {
                let inserted = diesel::insert_into(order_lookup_gaps::table).values(&gaps).execute(&mut **conn).await;
                diagnosed(&mut **conn, inserted).await?;
            }
            // See `insert_orders`.
            DbConn::Sqlite(conn) => {
                let inserted = conn.spawn_blocking(move |conn| insert_gaps_blocking(conn, &gaps)).await;
                diagnosed(&mut **conn, inserted).await?;
            }
        }
        Ok(())
    }

    /// Gaps with orders before `before`, by their last order, the newest first. One whose bounds are no ids is left out.
    pub async fn gaps_before(&mut self, before: Uuid, limit: i64) -> DbResult<Vec<Gap>> {
        let conn = self;
        let query = order_lookup_gaps::table
            .select(order_lookup_gaps::all_columns)
            .filter(order_lookup_gaps::first_order.lt(before.as_bytes().to_vec()))
            .order(order_lookup_gaps::last_order.desc())
            .limit(limit);
        let found: Vec<GapRow> = on_db!(conn, query.load(conn).await)?;
        let gap = |(id, first, last, orders, changed, product_ids): GapRow| {
            let (first, last) = (Uuid::from_slice(&first).ok()?, Uuid::from_slice(&last).ok()?);
            let products = product_ids.and_then(|list| serde_json::from_str(&list).ok());
            Some(Gap { rows: vec![id], first, last, orders, changed, products })
        };
        Ok(found.into_iter().filter_map(gap).collect())
    }

    /// The greatest number of a gap, and the orders in those with a greater one than `after`.
    pub async fn gaps_since(&mut self, after: i64) -> DbResult<(i64, i64)> {
        let conn = self;
        let newest = order_lookup_gaps::table
            .select((order_lookup_gaps::id, order_lookup_gaps::orders))
            .filter(order_lookup_gaps::id.gt(after));
        let found: Vec<(i64, i64)> = on_db!(conn, newest.load(conn).await)?;
        let greatest = found.iter().map(|(id, _)| *id).max().unwrap_or(after);
        Ok((greatest, found.iter().map(|(_, orders)| orders).sum()))
    }

    /// Whether there are any.
    pub async fn has_gaps(&mut self) -> DbResult<bool> {
        let conn = self;
        let any = order_lookup_gaps::table.select(order_lookup_gaps::id).limit(1);
        let any: Option<i64> = on_db!(conn, any.get_result(conn).await.optional())?;
        Ok(any.is_some())
    }

    /// Orders in all gaps, about.
    pub async fn orders_in_gaps(&mut self) -> DbResult<i64> {
        let conn = self;
        let sum = diesel::dsl::sql::<diesel::sql_types::BigInt>("CAST(COALESCE(SUM(orders), 0) AS SIGNED)");
        on_db!(conn, order_lookup_gaps::table.select(sum).get_result(conn).await)
    }

    /// Makes one row of a gap's rows. `left`: what is left of it, its last order and how many, about; `None`: nothing.
    pub async fn keep_gap(&mut self, gap: &Gap, left: Option<(Uuid, i64)>) -> DbResult<()> {
        let (kept, gone) = match (left, gap.rows.split_first()) {
            (Some(left), Some((first, others))) => (Some((*first, left)), others),
            _ => (None, gap.rows.as_slice()),
        };
        let conn = self;
        if !gone.is_empty() {
            let rows = order_lookup_gaps::table.filter(order_lookup_gaps::id.eq_any(gone));
            on_db!(conn, diesel::delete(rows).execute(conn).await)?;
        }
        if let Some((id, (last, orders))) = kept {
            let set = (
                order_lookup_gaps::first_order.eq(gap.first.as_bytes().to_vec()),
                order_lookup_gaps::last_order.eq(last.as_bytes().to_vec()),
                order_lookup_gaps::orders.eq(orders.max(0)),
                order_lookup_gaps::changed.eq(gap.changed),
                order_lookup_gaps::product_ids.eq(gap.products.as_ref().and_then(product_ids)),
            );
            let row = order_lookup_gaps::table.filter(order_lookup_gaps::id.eq(id));
            on_db!(conn, diesel::update(row).set(set).execute(conn).await)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, random: u8) -> OrderId {
        let uuid = uuid::Builder::from_unix_timestamp_millis(ms, &[random; 10]).into_uuid();
        uuid.try_into().unwrap()
    }

    fn products(count: i64) -> impl Iterator<Item = ProductId> {
        (1..=count).map(|id| id.try_into().unwrap())
    }

    fn counts(gaps: &[NewGap]) -> Vec<i64> {
        gaps.iter().map(|gap| gap.orders).collect()
    }

    const NOW: u64 = 1_796_000_000_000;

    #[test]
    fn orders_that_are_written_together_are_one_gap() {
        assert_eq!(NewGap::of_written(products(0), std::iter::empty()), []);
        let ids = [id(NOW + 9_000, 1), id(NOW, 2), id(NOW + 500, 3)];
        let gaps = NewGap::of_written(products(2), ids.into_iter());
        assert_eq!(counts(&gaps), [3]);
        assert_eq!(gaps[0], NewGap::new(ids[1], ids[0], 3, false, Some("[1,2]".to_owned())));
    }

    #[test]
    fn a_gap_of_more_products_than_it_can_name_may_have_orders_of_any() {
        let gaps = NewGap::of_written(products(200), [id(NOW, 1)].into_iter());
        assert_eq!(gaps[0].product_ids, None);
        let gap = |ms, products: Option<&[i64]>| {
            let (first, last) = (id(ms, 1).into(), id(ms + 1, 1).into());
            let products = products.map(|products| products.iter().copied().collect());
            Gap { rows: vec![1], first, last, orders: 1, changed: false, products }
        };
        let joined = |newer, older| Gap::joined(vec![gap(NOW + 5, newer), gap(NOW, older)]).remove(0).products;
        assert_eq!(joined(Some(&[7, 3]), Some(&[5, 7])), Some([3, 5, 7].into()));
        assert_eq!(joined(Some(&[7]), None), None);
        assert_eq!(joined(None, Some(&[])), None);
    }

    #[test]
    fn one_that_comes_a_day_late_does_not_open_a_gap_of_a_day() {
        let ids = [id(NOW, 1), id(NOW - 86_400_000, 2), id(NOW + 1, 3)];
        assert_eq!(counts(&NewGap::of_written(products(1), ids.into_iter())), [1, 2]);
    }

    #[test]
    fn orders_that_change_open_no_gap_over_the_many_between_them() {
        let ids = vec![id(NOW, 1), id(NOW + 2, 2), id(NOW + 3_000, 3), id(NOW + 900_000, 4)];
        let gaps = NewGap::of_changed(ids);
        assert_eq!(counts(&gaps), [2, 1, 1]);
        assert!(gaps.iter().all(|gap| gap.changed));
    }
}
