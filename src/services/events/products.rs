//! What is left of products.

use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::fan_out::{Event, FanOut};
use super::listener::{Listener, Places, encoded};
use super::{LOOK_EVERY, pace};
use crate::error::{Error, Result};
use crate::model::{ProductId, SaleState, Timestamp};
use crate::services::catalog::{ProductQueries, ProductView};

/// What changes of a product while it is sold. `revision` says when to fetch the rest again.
#[derive(PartialEq, Serialize, ToSchema)]
#[schema(as = ProductChange)]
pub struct ProductEvent {
    id: ProductId,
    remaining: i64,
    held: i64,
    state: SaleState,
    stock: i64,
    starts_at: Timestamp,
    #[schema(required)]
    ends_at: Option<Timestamp>,
    #[schema(required)]
    sold_out_at: Option<Timestamp>,
    revision: i64,
}

/// The same, and when it was so.
#[derive(Serialize, ToSchema)]
#[schema(as = ProductEvent)]
pub struct TimedProductEvent<'a> {
    #[serde(flatten)]
    event: &'a ProductEvent,
    server_time: Timestamp,
}

impl From<&ProductView> for ProductEvent {
    fn from(product: &ProductView) -> Self {
        Self {
            id: product.id,
            remaining: product.remaining,
            held: product.held,
            state: product.state,
            stock: product.stock,
            starts_at: product.starts_at,
            ends_at: product.ends_at,
            sold_out_at: product.sold_out_at,
            revision: product.revision,
        }
    }
}

impl Event for ProductEvent {
    fn encoded(&self, now: Timestamp) -> Result<actix_web::web::Bytes> {
        encoded("product", &TimedProductEvent { event: self, server_time: now })
    }

    /// That a sale has opened, sold out or stopped; how many units are left can wait.
    fn is_urgent_after(&self, before: &Self) -> bool {
        self.state != before.state
    }
}

/// See the module.
pub struct ProductEvents {
    products: Arc<ProductQueries>,
    feeds: FanOut<ProductId, ProductEvent>,
    places: Places,
}

impl ProductEvents {
    /// For so many listeners at most.
    pub fn new(products: Arc<ProductQueries>, listeners: usize) -> Self {
        Self { products, feeds: FanOut::new(), places: Places::new(listeners) }
    }

    /// Those of these products that there are, from now on.
    pub async fn listen(&self, ids: &[ProductId]) -> Result<Listener> {
        let mut listener = Listener::new(self.places.take()?);
        let (mut feeds, mut unknown) = (Vec::new(), Vec::new());
        for id in ids {
            match self.feeds.join(*id)? {
                Some(feed) => feeds.push(feed),
                None => unknown.push(*id),
            }
        }
        for id in unknown {
            match self.products.seen(id).await {
                Ok(product) => feeds.push(self.feeds.begin(id, (&*product).into(), self.products.now())?),
                Err(Error::ProductNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        if feeds.is_empty() {
            return Err(Error::ProductNotFound);
        }
        let now = self.products.now();
        for feed in feeds {
            listener.hear(feed, now)?;
        }
        Ok(listener)
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.places.taken()
    }

    /// Looks while somebody listens, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let due = || self.feeds.due(|| LOOK_EVERY);
        while let Some(ids) = stop.run_until_cancelled(due()).await {
            self.look(ids).await;
        }
    }

    async fn look(&self, ids: Vec<ProductId>) {
        match self.products.read_all(ids).await {
            Ok(found) => {
                // What was told at the look before is not too fresh to be followed at this one.
                let (now, pace) = (self.products.now(), pace(self.listeners()).saturating_sub(LOOK_EVERY / 2));
                found.iter().for_each(|product| self.feeds.tell(product.id, product.into(), now, pace));
            }
            // The health check has said so; listeners see by its time how old the last event is.
            Err(error) => tracing::debug!(%error, "Could not look at what people listen to"),
        }
        self.feeds.keep_alive(self.products.now());
    }

    /// All who listen are let go, and asked to come back after a while.
    pub fn end(&self) {
        self.feeds.end();
    }
}
