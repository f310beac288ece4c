//! What becomes of an order, for its buyer.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Bytes;
use futures_util::Stream;
use tokio_util::sync::CancellationToken;

use super::fan_out::{Event, FanOut};
use super::listener::{Listener, Places, encoded};
use super::pace;
use crate::error::Result;
use crate::model::{OrderId, Timestamp};
use crate::services::accounts::Identity;
use crate::services::orders::{OrderView, Orders};

/// A token may be withdrawn or end; so a listener shows it again after this time.
const LIFETIME: Duration = Duration::from_secs(300);
/// An order changes a few times in its life, so it is looked at more rarely.
const PACES_A_LOOK: u32 = 2;

impl Event for OrderView {
    fn encoded(&self, _: Timestamp) -> Result<Bytes> {
        encoded("order", self)
    }

    /// It changes a few times in its life.
    fn is_urgent_after(&self, _: &Self) -> bool {
        true
    }
}

/// See the module.
pub struct OrderEvents {
    orders: Arc<Orders>,
    feeds: FanOut<OrderId, OrderView>,
    places: Places,
}

impl OrderEvents {
    /// For so many listeners at most.
    pub fn new(orders: Arc<Orders>, listeners: usize) -> Self {
        Self { orders, feeds: FanOut::new(), places: Places::new(listeners) }
    }

    /// An order from now on, for its buyer or an administrator.
    pub async fn listen(&self, reader: Identity, id: OrderId) -> Result<impl Stream<Item = Bytes> + use<>> {
        let place = self.places.take()?;
        let order = self.orders.get(reader, id).await?;
        let now = Timestamp::now();
        let mut listener = Listener::new(place);
        listener.hear(self.feeds.begin(id, order, now)?, now)?;
        Ok(listener.for_at_most(LIFETIME))
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.places.taken()
    }

    /// Looks while somebody listens, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let due = || self.feeds.due(|| pace(self.listeners()) * PACES_A_LOOK);
        while let Some(ids) = stop.run_until_cancelled(due()).await {
            self.look(&ids).await;
        }
    }

    /// One that is not written yet stays as it is.
    async fn look(&self, ids: &[OrderId]) {
        match self.orders.all_written(ids).await {
            Ok(found) => {
                let now = Timestamp::now();
                found.into_iter().for_each(|order| self.feeds.tell(order.id, order, now, Duration::ZERO));
            }
            Err(error) => tracing::debug!(%error, "Could not look at the orders that people listen to"),
        }
        self.feeds.keep_alive(Timestamp::now());
    }

    /// All who listen are let go, and asked to come back after a while.
    pub fn end(&self) {
        self.feeds.end();
    }
}
