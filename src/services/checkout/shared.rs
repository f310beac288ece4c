//! What the batchers of an instance share: the gate, the queue, and what is known of confirmed orders and missing products.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

use super::confirmed_orders::ConfirmedOrders;
use crate::db::Db;
use crate::error::Error;
use crate::model::{Denial, OrderId, ProductId};
use crate::queue::OrderQueue;
use crate::services::deployment::Membership;
use crate::services::known_products::KnownProducts;
use crate::services::recovery::Rebuilder;
use crate::stock::StockGate;
use crate::supervision::Supervisor;
use crate::telemetry::{Metrics, SharedOutage};

/// A product that does not exist, or whose sale has ended and whose gate was taken away, is looked for again after this.
const MISSING_FOR: Duration = Duration::from_millis(200);
const MAX_MISSING: u64 = 10_000;
/// So is whether an order is paid that a late payment revives.
const REVIVED_FOR: Duration = Duration::from_millis(200);
const MAX_REVIVED: u64 = 10_000;

/// See the module.
pub struct Checkout {
    pub(super) db: Db,
    pub(super) gate: Arc<StockGate>,
    pub(super) queue: Arc<OrderQueue>,
    /// Says whether this instance may promise.
    pub(super) membership: Arc<Membership>,
    pub(super) rebuilder: Arc<Rebuilder>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) known: Arc<KnownProducts>,
    pub(super) supervisor: Supervisor,
    /// So that many purchases that fail are few lines in the log.
    pub(super) publish_outage: SharedOutage,
    pub(super) confirmed: ConfirmedOrders,
    /// Why products had no gate a moment ago.
    pub(super) needs_no_gate: Cache<ProductId, WhyNoGate>,
    /// Whether orders that late payments revive were paid a moment ago.
    pub(super) revived_paid: Cache<OrderId, bool>,
}

/// Why a product has no gate and needs none.
#[derive(Debug, Clone, Copy)]
pub(super) enum WhyNoGate {
    /// There is no such product.
    Unknown,
    /// Its sale has ended.
    Ended,
}

impl From<WhyNoGate> for Error {
    fn from(why: WhyNoGate) -> Self {
        match why {
            WhyNoGate::Unknown => Self::ProductNotFound,
            WhyNoGate::Ended => Denial::Ended.into(),
        }
    }
}

impl Checkout {
    /// Admits at the gate of a deployment and publishes to its queue; asks its database about products without a gate.
    pub fn new(
        membership: Arc<Membership>,
        rebuilder: Arc<Rebuilder>,
        known: Arc<KnownProducts>,
        supervisor: Supervisor,
    ) -> Self {
        let Membership { db, gate, queue, metrics, .. } = &*membership;
        let (db, gate, queue, metrics) = (db.clone(), gate.clone(), queue.clone(), metrics.clone());
        let needs_no_gate = Cache::builder().max_capacity(MAX_MISSING).time_to_live(MISSING_FOR).build();
        let revived_paid = Cache::builder().max_capacity(MAX_REVIVED).time_to_live(REVIVED_FOR).build();
        let confirmed = ConfirmedOrders::default();
        let publish_outage = SharedOutage::new(
            "The queue did not confirm purchases; their buyers are answered 503",
            "The queue confirms purchases again",
        );
        Self {
            db,
            gate,
            queue,
            membership,
            rebuilder,
            metrics,
            known,
            supervisor,
            publish_outage,
            confirmed,
            needs_no_gate,
            revived_paid,
        }
    }
}

/// The `503` of an instance whose gate may no longer be the deployment's.
pub(super) fn may_not_promise() -> Error {
    Error::Unavailable(
        "this instance may not promise: a newer gate has begun, or what the deployment uses is not known just now"
            .to_owned(),
    )
}
