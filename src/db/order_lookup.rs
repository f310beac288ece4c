//! Queries on `order_lookup`: lists of order ids, of a product and a status, of a status alone, and of a buyer. They are filled later than
//! the orders change. So what a list names is looked up in `orders`, too, before it is shown. Orders that may be missing in the lists have
//! ids between the first and the last of a row of `order_lookup_gaps`.

use std::fmt::Write;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Binary, Text};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::schema::{order_lookup, orders};
use crate::model::{OrderStatus, ProductId, UserId};

/// The statuses that an order in the database has, each with its number in a list's; the numbers stay.
const STATUSES: [(OrderStatus, i64); 5] = [
    (OrderStatus::Unpaid, 1),
    (OrderStatus::Paid, 2),
    (OrderStatus::Cancelled, 3),
    (OrderStatus::Expired, 4),
    (OrderStatus::Rejected, 5),
];
/// Lists of a product.
const LISTS: i64 = 8;

/// The list of a status, of one product or of all.
pub fn lists_of_status(product: Option<ProductId>, status: OrderStatus) -> Vec<i64> {
    let product = product.map_or(0, ProductId::get);
    let number = STATUSES.iter().find(|(known, _)| *known == status);
    number.map(|(_, number)| product * LISTS + number).into_iter().collect()
}

/// All lists of a product: together they have each of its orders.
pub fn lists_of_product(product: ProductId) -> Vec<i64> {
    STATUSES.iter().map(|(_, number)| product.get() * LISTS + number).collect()
}

/// The list of a buyer, with all their orders.
pub(super) fn list_of_buyer(user: UserId) -> i64 {
    -user.get()
}

/// An order as the lookup sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderPlace {
    /// Its id.
    pub id: Uuid,
    /// Of which product.
    pub product: i64,
    /// Whose.
    pub user: i64,
    /// Where it stands; `None`: nobody knows such a status.
    pub status: Option<OrderStatus>,
}

/// The id, the product, the buyer and the status.
pub(super) type PlaceRow = (Vec<u8>, i64, i64, String);

pub(super) fn places(found: Vec<PlaceRow>) -> Vec<OrderPlace> {
    let place = |(id, product, user, status): PlaceRow| {
        Some(OrderPlace { id: Uuid::from_slice(&id).ok()?, product, user, status: status.parse().ok() })
    };
    found.into_iter().filter_map(place).collect()
}

/// An order in a list.
pub type LookupEntry = (i64, Uuid);

impl OrderPlace {
    /// The lists that it belongs in.
    pub fn entries(&self) -> impl Iterator<Item = LookupEntry> {
        let buyer = UserId::try_from(self.user).ok();
        let of_buyer = buyer.map(|buyer| (list_of_buyer(buyer), self.id));
        of_buyer.into_iter().chain(self.lists(|known, status| known == status))
    }

    /// The lists that it does not belong in, and may have.
    pub fn former_entries(&self) -> impl Iterator<Item = LookupEntry> {
        self.lists(|known, status| known != status)
    }

    fn lists(&self, is_meant: fn(OrderStatus, OrderStatus) -> bool) -> impl Iterator<Item = LookupEntry> {
        let Self { id, product, status, .. } = *self;
        let meant = STATUSES.iter().filter(move |(known, _)| status.is_some_and(|status| is_meant(*known, status)));
        meant.flat_map(move |(_, number)| [(*number, id), (product * LISTS + number, id)])
    }
}

/// Entries come as one JSON value: pairs of list and id.
const ADD_MYSQL: &str = "INSERT IGNORE INTO order_lookup (list, order_id) SELECT item.list, UNHEX(item.id) \
    FROM JSON_TABLE(?, '$[*]' COLUMNS (list BIGINT PATH '$[0]', id CHAR(32) PATH '$[1]')) AS item";
const ADD_SQLITE: &str = "INSERT OR IGNORE INTO order_lookup (list, order_id) \
    SELECT json_extract(value, '$[0]'), unhex(json_extract(value, '$[1]')) FROM json_each(?)";
const REMOVE_MYSQL: &str = "DELETE order_lookup FROM JSON_TABLE(?, '$[*]' COLUMNS \
           (list BIGINT PATH '$[0]', id CHAR(32) PATH '$[1]')) AS item \
    STRAIGHT_JOIN order_lookup ON order_lookup.list = item.list AND order_lookup.order_id = UNHEX(item.id)";
const REMOVE_SQLITE: &str = "DELETE FROM order_lookup WHERE (list, order_id) IN \
    (SELECT json_extract(value, '$[0]'), unhex(json_extract(value, '$[1]')) FROM json_each(?))";
/// Locks the turn, unless somebody has it.
const TAKE_TURN: &str = "SELECT 1 AS turn FROM order_lookup_turn WHERE id = 1 FOR UPDATE SKIP LOCKED";

#[derive(QueryableByName)]
struct Turn {
    #[diesel(sql_type = BigInt)]
    turn: i64,
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = Binary)]
    order_id: Vec<u8>,
}

impl DbConn {
    /// In a transaction, until its end: whether nobody else fills the lookup. A file has one writer.
    pub async fn take_lookup_turn(&mut self) -> DbResult<bool> {
        match self {
            DbConn::Sqlite(_) => Ok(true),
            DbConn::MySql(conn) => {
                let turn = sql_query(TAKE_TURN).get_result::<Turn>(&mut **conn).await.optional();
                Ok(diagnosed(&mut **conn, turn).await?.is_some_and(|turn| turn.turn == 1))
            }
        }
    }

    /// Orders from `first` to `last`, the newest first, as the lookup sees them; with them comes whether there may be more.
    pub async fn order_places(&mut self, first: Uuid, last: Uuid, limit: i64) -> DbResult<(Vec<OrderPlace>, bool)> {
        let conn = self;
        let query = orders::table
            .select((orders::id, orders::product_id, orders::user_id, orders::status))
            .filter(orders::id.between(first.as_bytes().to_vec(), last.as_bytes().to_vec()))
            .order(orders::id.desc())
            .limit(limit);
        let found: Vec<PlaceRow> = on_db!(conn, query.load(conn).await)?;
        let is_cut = found.len() as i64 >= limit;
        Ok((places(found), is_cut))
    }

    /// Adds entries; those that are there stay.
    pub async fn add_to_lookup(&mut self, entries: &[LookupEntry]) -> DbResult<()> {
        self.with_entries(entries, ADD_MYSQL, ADD_SQLITE).await
    }

    /// Takes entries away; those that are not there are no error.
    pub async fn remove_from_lookup(&mut self, entries: &[LookupEntry]) -> DbResult<()> {
        self.with_entries(entries, REMOVE_MYSQL, REMOVE_SQLITE).await
    }

    async fn with_entries(&mut self, entries: &[LookupEntry], mysql: &str, sqlite: &str) -> DbResult<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let list = json(entries);
        match self {
            DbConn::MySql(conn) => {
                let done = sql_query(mysql).bind::<Text, _>(list).execute(&mut **conn).await;
                diagnosed(&mut **conn, done).await?;
            }
            DbConn::Sqlite(conn) => {
                let done = sql_query(sqlite).bind::<Text, _>(list).execute(&mut **conn).await;
                diagnosed(&mut **conn, done).await?;
            }
        }
        Ok(())
    }

    /// Orders before `before` in any of these lists, the newest first, each once or several times.
    pub async fn looked_up(&mut self, lists: &[i64], before: Uuid, limit: i64) -> DbResult<Vec<Uuid>> {
        let conn = self;
        let before = before.as_bytes().to_vec();
        let found: Vec<Vec<u8>> = match lists {
            [] => Vec::new(),
            [list] => {
                let query = order_lookup::table
                    .select(order_lookup::order_id)
                    .filter(order_lookup::list.eq(list))
                    .filter(order_lookup::order_id.lt(before))
                    .order(order_lookup::order_id.desc())
                    .limit(limit);
                on_db!(conn, query.load(conn).await)?
            }
            lists => {
                let query = sql_query(merged(lists, limit));
                macro_rules! found {
                    ($conn:expr, $database:ty) => {{
                        let mut query = query.into_boxed::<$database>();
                        for _ in lists {
                            query = query.bind::<Binary, _>(before.clone());
                        }
                        let found = query.load::<Id>($conn).await;
                        diagnosed($conn, found).await?
                    }};
                }
                let found = match conn {
                    DbConn::MySql(conn) => found!(&mut **conn, diesel::mysql::Mysql),
                    DbConn::Sqlite(conn) => found!(&mut **conn, diesel::sqlite::Sqlite),
                };
                found.into_iter().map(|id| id.order_id).collect()
            }
        };
        Ok(found.iter().filter_map(|id| Uuid::from_slice(id).ok()).collect())
    }
}

/// The newest of each list, and of these the newest: no list is read further than the page reaches.
fn merged(lists: &[i64], limit: i64) -> String {
    let of_list = |list: &i64| {
        format!(
            "SELECT * FROM (SELECT order_id FROM order_lookup WHERE list = {list} AND order_id < ? \
             ORDER BY order_id DESC LIMIT {limit}) AS of_list_{list}"
        )
    };
    let all: Vec<String> = lists.iter().map(of_list).collect();
    format!("SELECT order_id FROM ({}) AS merged ORDER BY order_id DESC LIMIT {limit}", all.join(" UNION ALL "))
}

fn json(entries: &[LookupEntry]) -> String {
    let mut list = String::with_capacity(entries.len() * 56);
    for (place, (number, id)) in entries.iter().enumerate() {
        let begin = if place == 0 { '[' } else { ',' };
        let _ = write!(list, "{begin}[{number},\"{}\"]", id.simple());
    }
    list.push(']');
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_in_the_list_of_its_buyer_of_its_status_and_of_its_product_and_status() {
        let (id, product) = (Uuid::now_v7(), ProductId::try_from(7).unwrap());
        let place = OrderPlace { id, product: 7, user: 9, status: Some(OrderStatus::Paid) };
        let lists: Vec<i64> = place.entries().map(|(list, _)| list).collect();
        let of_status = [lists_of_status(None, OrderStatus::Paid), lists_of_status(Some(product), OrderStatus::Paid)];
        assert_eq!(lists, [vec![-9], of_status.concat()].concat());
        let mut all: Vec<i64> = place.entries().chain(place.former_entries()).map(|(list, _)| list).collect();
        all.sort_unstable();
        let every = lists_of_product(product).into_iter().chain(STATUSES.iter().map(|(_, number)| *number));
        let mut every: Vec<i64> = every.chain([-9]).collect();
        every.sort_unstable();
        assert_eq!(all, every);
        let unknown = OrderPlace { status: None, ..place };
        assert_eq!(unknown.entries().chain(unknown.former_entries()).collect::<Vec<_>>(), [(-9, id)]);
    }
}
