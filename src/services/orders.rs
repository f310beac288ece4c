//! Orders as their buyers see them, those included that no consumer has written yet.

use std::sync::Arc;

use super::{Identity, Page, nothing_on_the_way_before};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::{Order, OrderId, OrderStatus, ProductId, Role, UserId};
use crate::stock::{HeldUnit, StockGate};

/// Products asked for in one call to the gate.
const PRODUCTS_A_CALL: usize = 500;

/// See the module.
pub struct Orders {
    db: Db,
    gate: Arc<StockGate>,
}

/// Units that a user holds in the gate.
struct Holdings {
    orders: Vec<(ProductId, OrderId)>,
    /// A gate could not say.
    incomplete: bool,
}

impl Orders {
    /// Reads the database, and the gate for what is not there yet.
    pub fn new(db: Db, gate: Arc<StockGate>) -> Self {
        Self { db, gate }
    }

    /// One order: of its buyer, or of anybody for an administrator.
    pub async fn get(&self, reader: Identity, id: OrderId) -> Result<Order> {
        if let Some(order) = self.find_written(id).await? {
            return visible(order, reader);
        }
        let (queued, incomplete) = self.find_queued(reader, id).await?;
        // Again: between the two looks a consumer may have written and settled it.
        if let Some(order) = self.find_written(id).await? {
            return visible(order, reader);
        }
        match queued {
            Some((product, user)) => self.queued_order(product, id, user).await,
            None if incomplete => Err(Error::Unavailable("a gate is lost or closed".to_owned())),
            None => Err(Error::OrderNotFound),
        }
    }

    /// Orders of a user, newest first, queued ones included.
    pub async fn list(&self, user: UserId, cursor: Option<OrderId>, limit: usize) -> Result<Page<Order>> {
        // Before the database: what is written in between is then found there.
        let held = self.holdings(user).await?.orders;
        let wanted = limit as i64 + 1;
        let mut orders =
            self.db.read(move |conn| Box::pin(async move { conn.list_orders(user, cursor, wanted).await })).await?;
        // An order older than the whole page is on a later one, or written long ago.
        let oldest = if orders.len() as i64 == wanted { orders.last().map(|order| order.id) } else { None };
        for (product, id) in held {
            let on_page = oldest.is_none_or(|oldest| id > oldest) && cursor.is_none_or(|cursor| id < cursor);
            if on_page && !orders.iter().any(|order| order.id == id) {
                let order = match self.find_written(id).await? {
                    Some(order) => order,
                    None => self.queued_order(product, id, user).await?,
                };
                orders.push(order);
            }
        }
        orders.sort_by_key(|order| std::cmp::Reverse(order.id));
        Ok(Page::cut(orders, limit, |order| order.id.to_string()))
    }

    async fn find_written(&self, id: OrderId) -> Result<Option<Order>> {
        self.db.read(move |conn| Box::pin(async move { Ok(conn.find_order(id).await?) })).await
    }

    async fn find_queued(&self, reader: Identity, id: OrderId) -> Result<(Option<(ProductId, UserId)>, bool)> {
        let holdings = self.holdings(reader.user_id).await?;
        if let Some((product, _)) = holdings.orders.iter().find(|(_, order)| *order == id) {
            return Ok((Some((*product, reader.user_id)), false));
        }
        if reader.role == Role::Admin {
            for product in self.products_on_the_way().await? {
                if let Some(user) = self.gate.buyer_in_flight(product, id).await? {
                    return Ok((Some((product, user)), false));
                }
            }
        }
        Ok((None, holdings.incomplete))
    }

    async fn holdings(&self, user: UserId) -> Result<Holdings> {
        let mut holdings = Holdings { orders: Vec::new(), incomplete: false };
        for products in self.products_on_the_way().await?.chunks(PRODUCTS_A_CALL) {
            let held = self.gate.held_by(user, products).await?;
            for (product, unit) in products.iter().zip(held) {
                match unit {
                    Some(HeldUnit::Order(order)) => holdings.orders.push((*product, order)),
                    Some(HeldUnit::Nothing) => {}
                    None => holdings.incomplete = true,
                }
            }
        }
        Ok(holdings)
    }

    async fn products_on_the_way(&self) -> Result<Vec<ProductId>> {
        let since = nothing_on_the_way_before();
        self.db.read(move |conn| Box::pin(async move { Ok(conn.unfinished_products(since).await?) })).await
    }

    async fn queued_order(&self, product: ProductId, id: OrderId, user_id: UserId) -> Result<Order> {
        let product = self
            .db
            .read(move |conn| Box::pin(async move { Ok::<_, Error>(conn.find_product(product).await?) }))
            .await?
            .ok_or(Error::OrderNotFound)?;
        Ok(Order {
            id,
            user_id,
            product_id: product.id,
            product_name: product.name,
            price_cents: product.price_cents,
            status: OrderStatus::Queued,
            reason: None,
            created_at: id.drawn_at(),
            updated_at: id.drawn_at(),
        })
    }
}

fn visible(order: Order, reader: Identity) -> Result<Order> {
    if order.user_id == reader.user_id || reader.role == Role::Admin { Ok(order) } else { Err(Error::OrderNotFound) }
}
