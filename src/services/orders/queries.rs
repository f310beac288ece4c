//! Orders as their buyers see them, those included that no consumer has written yet.
//!
//! One that is not written is at the gate of its product, which its id names; so a look at it costs the same however many
//! sales there are. Looks use connections that no purchase waits for, and each user has a limit of them.

use std::sync::Arc;

use futures_util::future::join_all;
use uuid::Uuid;

use super::holdings::Holdings;
use super::read_limit::ReadLimit;
use super::unfinished_sales::{ProductsInFlight, UnfinishedSales};
use super::view::OrderView;
use crate::db::{self, Db, RevisionTerms};
use crate::error::{Error, Result};
use crate::model::{Currency, Order, OrderId, OrderStatus, ProductId, Purchase, Revision, Role};
use crate::queue::OrderQueue;
use crate::services::accounts::Identity;
use crate::services::known_products::KnownProducts;
use crate::services::page::Page;
use crate::stock::{Holding, StockGate};

/// Products asked for in one call to the gate.
const PRODUCTS_A_CALL: usize = 200;
/// Orders that are read together.
const ORDERS_A_QUERY: usize = 500;

/// See the module.
pub struct Orders {
    db: Db,
    gate: Arc<StockGate>,
    queue: Arc<OrderQueue>,
    known: Arc<KnownProducts>,
    unfinished_sales: Arc<UnfinishedSales>,
    holdings: Holdings,
    read_limit: ReadLimit,
    /// Of orders from before there were others.
    currency: Currency,
}

/// Where an order is that the database does not have.
enum Queued {
    /// At the gate of this product.
    At(ProductId, Purchase),
    /// Nowhere.
    Nowhere,
    /// A gate that may know it cannot say.
    Unknown,
}

impl Orders {
    /// Reads the database, and the gate for what is not there yet.
    pub fn new(
        db: Db,
        gate: Arc<StockGate>,
        queue: Arc<OrderQueue>,
        known: Arc<KnownProducts>,
        unfinished_sales: Arc<UnfinishedSales>,
        holdings: Holdings,
        currency: Currency,
    ) -> Self {
        Self { db, gate, queue, known, unfinished_sales, holdings, read_limit: ReadLimit::new(), currency }
    }

    /// One order: of its buyer, or of anybody for an administrator.
    pub async fn get(&self, reader: Identity, id: OrderId) -> Result<OrderView> {
        self.note_read(reader)?;
        self.find(reader, id).await.map(|order| self.view(order))
    }

    /// One that is written, as it is now.
    pub(in crate::services) async fn written(&self, id: OrderId) -> Result<Option<OrderView>> {
        Ok(self.find_written(id).await?.map(|order| self.view(order)))
    }

    /// Those of these that are written.
    pub(in crate::services) async fn all_written(&self, ids: &[OrderId]) -> Result<Vec<OrderView>> {
        let mut written = Vec::new();
        for ids in ids.chunks(ORDERS_A_QUERY) {
            let ids: Vec<Uuid> = ids.iter().map(|id| Uuid::from(*id)).collect();
            let read = self.db.read_within_share(db::ConnectionShare::Orders, move |conn| {
                Box::pin(async move { Ok::<_, Error>(conn.find_orders(&ids).await?) })
            });
            written.extend(read.await?.into_iter().map(|order| self.view(order)));
        }
        Ok(written)
    }

    fn view(&self, order: Order) -> OrderView {
        OrderView::of(order, self.currency)
    }

    async fn find(&self, reader: Identity, id: OrderId) -> Result<Order> {
        if let Some(order) = self.find_written(id).await? {
            return visible(order, reader);
        }
        let queued = self.find_queued(reader, id).await?;
        let revision = match queued {
            Queued::At(product, purchase) => self.gate.revision_in_flight(product, purchase).await,
            _ => Ok(None),
        };
        // Again: between the two looks a consumer can have written and confirmed it.
        if let Some(order) = self.find_written(id).await? {
            return visible(order, reader);
        }
        match queued {
            Queued::At(product, purchase) => self.find_queued_order(product, purchase, revision?).await,
            Queued::Nowhere => Err(Error::OrderNotFound),
            Queued::Unknown => Err(Error::Unavailable("a gate is lost or closed".to_owned())),
        }
    }

    /// Orders of a user, newest first, queued ones included.
    pub async fn list(&self, reader: Identity, cursor: Option<OrderId>, limit: usize) -> Result<Page<OrderView>> {
        self.note_read(reader)?;
        let user = reader.user_id;
        // Before the database: what is written in between is then found there.
        let held = self.holdings.of(user).await?.orders;
        let wanted = limit as i64 + 1;
        let listed = self
            .db
            .read_within_share(db::ConnectionShare::Orders, move |conn| {
                Box::pin(async move { conn.list_orders(user, cursor, wanted).await })
            })
            .await?;
        // An order older than the whole page is on a later one, or written long ago.
        let oldest = if listed.count as i64 == wanted { listed.keys.last().copied() } else { None };
        let mut orders = listed.rows;
        let mut held: Vec<(ProductId, Purchase)> = held
            .into_iter()
            .filter(|(_, id, _)| oldest.is_none_or(|oldest| *id > oldest) && cursor.is_none_or(|cursor| *id < cursor))
            // One whose row cannot be read is left out here, too.
            .filter(|(_, id, _)| !listed.keys.contains(id))
            .map(|(product, order_id, quantity)| (product, Purchase { order_id, user_id: user, quantity }))
            .collect();
        held.sort_by_key(|(_, purchase)| std::cmp::Reverse(purchase.order_id));
        held.truncate(limit + 1);
        if !held.is_empty() {
            orders.extend(self.held_orders(held).await?);
        }
        orders.sort_by_key(|order| std::cmp::Reverse(order.id));
        let orders = orders.into_iter().map(|order| self.view(order)).collect();
        Ok(Page::cut(orders, limit, oldest.map(|oldest| oldest.to_string()), |order: &OrderView| order.id.to_string()))
    }

    /// Notes a look. Administrators are trusted to know what they do.
    pub(in crate::services) fn note_read(&self, reader: Identity) -> Result<()> {
        if reader.role == Role::Admin { Ok(()) } else { self.read_limit.note(reader.user_id) }
    }

    async fn find_written(&self, id: OrderId) -> Result<Option<Order>> {
        self.db
            .read_within_share(db::ConnectionShare::Orders, move |conn| {
                Box::pin(async move { Ok(conn.find_order(id).await?) })
            })
            .await
    }

    async fn find_queued(&self, reader: Identity, id: OrderId) -> Result<Queued> {
        let mut unknown = false;
        if let Some(product) = id.likely_product()
            && self.known.may_exist(product).await?
        {
            match self.find_at(product, reader, id).await? {
                Queued::Nowhere => {}
                Queued::Unknown => unknown = self.may_be_on_its_way(product).await?,
                found @ Queued::At(..) => return Ok(found),
            }
        }
        // An id of an earlier version names nothing, and of a million products two share a name.
        let held = self.holdings.of(reader.user_id).await?;
        if let Some((product, order_id, quantity)) = held.orders.iter().find(|(_, order, _)| *order == id).copied() {
            return Ok(Queued::At(product, Purchase { order_id, user_id: reader.user_id, quantity }));
        }
        if reader.role == Role::Admin {
            for product in self.products_in_flight().await? {
                if let Some(purchase) = self.gate.find_in_flight(product, id).await? {
                    return Ok(Queued::At(product, purchase));
                }
            }
        }
        Ok(if unknown || held.incomplete { Queued::Unknown } else { Queued::Nowhere })
    }

    /// Looks at one gate.
    async fn find_at(&self, product: ProductId, reader: Identity, id: OrderId) -> Result<Queued> {
        match self.gate.held_by(reader.user_id, &[product]).await?.first() {
            Some(Some(Holding::Order { id: order_id, quantity })) if *order_id == id => {
                let (order_id, quantity) = (*order_id, *quantity);
                return Ok(Queued::At(product, Purchase { order_id, user_id: reader.user_id, quantity }));
            }
            Some(Some(_)) => {}
            _ => return Ok(Queued::Unknown),
        }
        if reader.role == Role::Admin
            && let Some(purchase) = self.gate.find_in_flight(product, id).await?
        {
            return Ok(Queued::At(product, purchase));
        }
        Ok(Queued::Nowhere)
    }

    /// Whether a purchase of a product whose gate is not open may be on its way to the database.
    async fn may_be_on_its_way(&self, product: ProductId) -> Result<bool> {
        if self.gate.shared().is_none() {
            // Nothing is in flight for a gate in this process that is not open.
            return Ok(false);
        }
        let sale = self.db.read_within_share(db::ConnectionShare::Orders, move |conn| {
            Box::pin(async move { Ok::<_, Error>(conn.find_sale(product).await?) })
        });
        let Some(sale) = sale.await? else {
            self.known.missed(product);
            return Ok(false);
        };
        if sale.retired {
            return Ok(false);
        }
        // Of a sale that ended long ago something can be in the queue, but nothing comes into it any more.
        let queue_is_empty = self.queue.is_ready() && self.queue.depth().is_some_and(|depth| depth.messages == 0);
        Ok(!sale.had_ended(self.unfinished_sales.since()) || !queue_is_empty)
    }

    /// Products of which something is in flight.
    async fn products_in_flight(&self) -> Result<Vec<ProductId>> {
        let unfinished = match self.unfinished_sales.in_flight().await? {
            ProductsInFlight::Of(products) => return Ok(products),
            ProductsInFlight::OfAny(products) => products,
        };
        // A look at many gates at once costs less than to ask each for one order.
        let mut in_flight = Vec::new();
        for products in unfinished.chunks(PRODUCTS_A_CALL) {
            let views = self.gate.view(products).await?;
            let some = products.iter().zip(views).filter(|(_, view)| view.is_some_and(|view| view.in_flight > 0));
            in_flight.extend(some.map(|(product, _)| *product));
        }
        Ok(in_flight)
    }

    /// What these purchases have become, or are as long as they are queued: in as many queries however many they are. A row that
    /// cannot be read, or a product that somebody has deleted, costs its own orders alone.
    async fn held_orders(&self, held: Vec<(ProductId, Purchase)>) -> Result<Vec<Order>> {
        let revisions = held.iter().map(|(product, purchase)| self.gate.revision_in_flight(*product, *purchase));
        let revisions = join_all(revisions).await;
        let ids: Vec<OrderId> = held.iter().map(|(_, purchase)| purchase.order_id).collect();
        let written = self.db.read_within_share(db::ConnectionShare::Orders, move |conn| {
            Box::pin(async move { Ok::<_, Error>(conn.find_written(&ids).await?) })
        });
        let written = written.await?;
        let mut queued = Vec::new();
        for ((product, purchase), revision) in held.into_iter().zip(revisions) {
            if !written.keys.contains(&purchase.order_id) {
                queued.push((product, purchase, revision?));
            }
        }
        let mut orders = written.rows;
        if queued.is_empty() {
            return Ok(orders);
        }
        let bought: Vec<_> = queued.iter().map(|(product, _, revision)| (*product, *revision)).collect();
        let terms = self.db.read_within_share(db::ConnectionShare::Orders, move |conn| {
            Box::pin(async move { Ok::<_, Error>(conn.terms_of(&bought).await?) })
        });
        let terms = terms.await?;
        let known = queued
            .into_iter()
            .zip(terms)
            .filter_map(|((product, purchase, _), terms)| Some(queued_order(product, purchase, terms?)));
        orders.extend(known);
        Ok(orders)
    }

    /// `revision`: of the click, as the gate said before the database was found not to have the order.
    async fn find_queued_order(
        &self,
        product: ProductId,
        purchase: Purchase,
        revision: Option<Revision>,
    ) -> Result<Order> {
        let find = self
            .db
            .read(move |conn| Box::pin(async move { Ok::<_, Error>(conn.find_terms(product, revision).await?) }));
        let terms = find.await?.ok_or(Error::OrderNotFound)?;
        Ok(queued_order(product, purchase, terms))
    }
}

fn queued_order(product_id: ProductId, purchase: Purchase, terms: RevisionTerms) -> Order {
    let Purchase { order_id: id, user_id, quantity } = purchase;
    Order {
        id,
        user_id,
        product_id,
        product_name: terms.name,
        price_cents: terms.price_cents,
        revision: terms.revision,
        status: OrderStatus::Queued,
        reason: None,
        created_at: id.drawn_at(),
        updated_at: id.drawn_at(),
        quantity,
        paid_at: None,
        currency: terms.currency,
        payment_window: terms.payment_window,
    }
}

fn visible(order: Order, reader: Identity) -> Result<Order> {
    if order.user_id == reader.user_id || reader.role == Role::Admin { Ok(order) } else { Err(Error::OrderNotFound) }
}
