//! Orders as a merchant sees them: all that a filter applies to, the newest first, with whose they are and how they were paid.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::explorer::{Explored, explore};
use super::filter::OrderFilter;
use crate::config::{Auth, Users};
use crate::db::{ConnectionShare, Db, DbConn, DbResult};
use crate::error::{Error, Result};
use crate::model::{Currency, Order, OrderId, OrderStatus, Payment, UserId};
use crate::services::accounts::Identity;
use crate::services::orders::{OrderView, Orders};
use crate::services::page::Page;
use crate::services::payments::{PaymentView, Payments};

/// A page that is not full by then goes on with the next one.
const PATIENCE: Duration = Duration::from_millis(15);
/// The same of one that is empty.
const PATIENCE_FOR_ANY: Duration = Duration::from_millis(25);
/// Payments of an order that are shown, the newest.
const MAX_PAYMENTS: usize = 20;

/// See the module.
pub struct OrderList {
    db: Db,
    orders: Arc<Orders>,
    payments: Arc<Payments>,
    /// Of orders from before there were others.
    currency: Currency,
    /// Of the shop's own directory.
    issuer: Option<Arc<str>>,
}

/// An order as a merchant sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct MerchantOrder {
    /// As its buyer sees it.
    #[serde(flatten)]
    pub(super) order: OrderView,
    pub(super) user_id: UserId,
    /// `null`: a user whom nobody knows here.
    #[schema(required)]
    pub(super) username: Option<String>,
    /// The newest first.
    pub(super) payments: Vec<PaymentView>,
}

/// What the database says of a page.
struct ReadPage {
    orders: Vec<Order>,
    names: HashMap<UserId, String>,
    payments: Vec<Payment>,
    /// Where the next page begins.
    next: Option<Uuid>,
}

impl OrderList {
    /// Reads `db`; what is not there yet, `orders` finds.
    pub fn new(db: Db, orders: Arc<Orders>, payments: Arc<Payments>, auth: &Auth, currency: Currency) -> Self {
        let is_external = auth.users == Users::External;
        let issuer = is_external.then(|| Arc::from(auth.external.issuer.as_str()));
        Self { db, orders, payments, currency, issuer }
    }

    /// Orders before `before`. A page may be shorter than `limit` although there are more: it then has a next one.
    pub async fn page(
        &self,
        admin: Identity,
        filter: &OrderFilter,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Page<MerchantOrder>> {
        let mut page = self.written(filter, before, limit).await?;
        if let Some(id) = filter.searched_order()
            && before.is_none()
            && page.items.is_empty()
        {
            match self.orders.get(admin, id).await {
                Ok(order) if order.status == OrderStatus::Queued => {
                    page.items.extend(self.queued(order, filter).await?)
                }
                // It was written in between.
                Ok(_) => page = self.written(filter, before, limit).await?,
                Err(Error::OrderNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(page)
    }

    /// The same of those that are written.
    pub(super) async fn written(
        &self,
        filter: &OrderFilter,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Page<MerchantOrder>> {
        let (filter, issuer) = (filter.clone(), self.issuer.clone());
        let before = before.unwrap_or(Uuid::max());
        let read = self.db.read_within_share(ConnectionShare::Orders, move |conn| {
            Box::pin(async move { Ok::<_, Error>(read_page(conn, &filter, issuer.as_deref(), before, limit).await?) })
        });
        let ReadPage { orders, names, payments, next } = read.await?;
        let mut paid: HashMap<OrderId, Vec<PaymentView>> = HashMap::new();
        for payment in payments {
            let shown = paid.entry(payment.order_id).or_default();
            if shown.len() < MAX_PAYMENTS {
                shown.push(self.payments.view(payment));
            }
        }
        let item = |order: Order| MerchantOrder {
            user_id: order.user_id,
            username: names.get(&order.user_id).cloned(),
            payments: paid.remove(&order.id).unwrap_or_default(),
            order: OrderView::of(order, self.currency),
        };
        Ok(Page { items: orders.into_iter().map(item).collect(), next_cursor: next.map(|next| next.to_string()) })
    }

    /// An order that is not written yet, if the filter applies to it.
    async fn queued(&self, order: OrderView, filter: &OrderFilter) -> Result<Option<MerchantOrder>> {
        let user_id = order.user_id;
        let is_meant = filter.status.is_none()
            && filter.refund_due != Some(true)
            && filter.user.is_none_or(|user| user == user_id)
            && filter.product.is_none_or(|product| product == order.product_id);
        if !is_meant {
            return Ok(None);
        }
        let names = self.db.read_within_share(ConnectionShare::Orders, move |conn| {
            Box::pin(async move { Ok::<_, Error>(conn.names_of(&[user_id]).await?) })
        });
        let username = names.await?.remove(&user_id);
        Ok(Some(MerchantOrder { order, user_id, username, payments: Vec::new() }))
    }
}

/// Steps until the page is full, all is read, or the time is over.
async fn read_page(
    conn: &mut DbConn,
    filter: &OrderFilter,
    issuer: Option<&str>,
    before: Uuid,
    limit: usize,
) -> DbResult<ReadPage> {
    let begun = Instant::now();
    let (mut orders, mut next) = (Vec::new(), Some(before));
    // One more says whether there is another page.
    while let Some(before) = next
        && orders.len() <= limit
        && (orders.is_empty() || begun.elapsed() < PATIENCE)
        && begun.elapsed() < PATIENCE_FOR_ANY
    {
        let Explored { ids, floor } = explore(conn, filter, issuer, before, limit + 1).await?;
        if !ids.is_empty() {
            let mut found = conn.find_orders(&ids).await?;
            found.retain(|order| filter.admits(order));
            if let Some(is_due) = filter.refund_due {
                let ids: Vec<OrderId> = found.iter().map(|order| order.id).collect();
                let due = conn.with_refund_due(&ids).await?;
                found.retain(|order| due.contains(&order.id) == is_due);
            }
            orders.extend(found);
        }
        next = floor;
    }
    if orders.len() > limit {
        orders.truncate(limit);
        next = orders.last().map(|order| order.id.into());
    }
    let ids: Vec<OrderId> = orders.iter().map(|order| order.id).collect();
    let users: Vec<UserId> = orders.iter().map(|order| order.user_id).collect();
    let (mut names, mut payments) = (HashMap::new(), Vec::new());
    if !orders.is_empty() {
        names = conn.names_of(&users).await?;
        payments = conn.payments_of(&ids).await?;
    }
    Ok(ReadPage { orders, names, payments, next })
}
