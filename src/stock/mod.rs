//! The gate: who may buy, decided in one atomic step before anything slow happens.
//!
//! It admits, it does not decide: the order's row in the database is the only decision. So every operation here is
//! "add" or "remove if it is still mine", and repeating one is harmless (I6). A gate that lost what it knew, or whose
//! server changed, says so ([`GateError::Lost`]) instead of selling from an empty memory (I7).

mod memory;
mod rate_limiter;
mod redis;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config;
use crate::model::{
    Denial, OrderId, ProductId, Purchase, PurchaseBatch, Revision, SaleSettings, SaleState, Timestamp, UserId,
};

pub use self::memory::HeldUnits;
use self::memory::MemoryGate;
use self::redis::RedisGate;
pub use self::redis::Staging;

/// One try per user and product in this time.
pub const RATE_WINDOW: Duration = Duration::from_secs(1);

/// Identity of a gate in this process.
const EMBEDDED_SERVER_ID: &str = "embedded";

/// The gate of the backend that was configured.
pub enum StockGate {
    /// In this process.
    Memory(Box<MemoryGate>),
    /// Redis, one Lua script a step.
    Redis(Box<RedisGate>),
}

/// What the gate answers to a batch of purchases of one product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The sale is open: one answer for each purchase, in order.
    Open {
        /// Epoch of the gate that admitted; the message to the consumer carries it.
        epoch: i64,
        /// Revision of the product under which units were taken just now; the message carries it, too.
        revision: Revision,
        /// The answers.
        answers: Vec<Answer>,
    },
    /// The sale is not open: nobody gets anything.
    Denied(Denial),
}

/// What the gate answers to one purchase of an open sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A unit is reserved for this order, by this call or by an earlier one with the same order id.
    Reserved,
    /// The buyer holds a unit under this order, which is not known to be in the database yet. It is the purchase's own order if
    /// that was admitted under another revision.
    InFlight {
        /// The order that holds it.
        order_id: OrderId,
        /// The revision of its click.
        revision: Revision,
    },
    /// The buyer gets nothing.
    Denied(Denial),
    /// The buyer has a reservation that nobody can read: it may stand for a promise.
    Unreadable,
}

/// What an open gate shows of its sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateView {
    /// What can still be bought.
    pub remaining: i64,
    /// Whether, by the gate's own clock.
    pub state: SaleState,
    /// Version of its terms.
    pub ver: i64,
    /// Units in all, as its terms say.
    pub stock: i64,
    /// Units that are taken.
    pub taken: i64,
    /// Those of them that are not known yet to have reached the database.
    pub in_flight: i64,
    /// Its epoch.
    pub epoch: i64,
}

/// Purchases that were admitted long ago and never settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// Epoch of their gate.
    pub epoch: i64,
    /// The purchases, the oldest first.
    pub purchases: Vec<Purchase>,
    /// The revision of each one's click, in the same order.
    pub revisions: Vec<Revision>,
}

impl Stale {
    /// As batches of the product, one for purchases in a row that have one revision.
    pub fn into_batches(self, product_id: ProductId) -> Vec<PurchaseBatch> {
        let mut batches: Vec<PurchaseBatch> = Vec::new();
        for (purchase, revision) in self.purchases.into_iter().zip(self.revisions) {
            match batches.last_mut().filter(|batch| batch.revision == Some(revision)) {
                Some(batch) => batch.items.push(purchase),
                None => batches.push(PurchaseBatch {
                    product_id,
                    epoch: self.epoch,
                    revision: Some(revision),
                    items: vec![purchase],
                }),
            }
        }
        batches
    }
}

/// A gate as its server shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Identity of the server.
    pub server_id: String,
    /// What is there.
    pub found: Found,
}

/// Whose gates a Redis holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateOwner {
    /// The deployment.
    pub deployment: String,
    /// Random; another one when it was emptied.
    pub redis_id: String,
}

/// What is there of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or something of another server or with parts missing: nothing of it can be used.
    Nothing,
    /// A closed gate of that epoch.
    Closed(i64),
    /// An open gate of that epoch.
    Open(i64),
}

/// Why the gate could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// It knows nothing of the product, or its server is another one than before.
    #[error("the gate is lost")]
    Lost,
    /// It is being rebuilt.
    #[error("the gate is closed")]
    Closed,
    /// A newer gate is in place.
    #[error("the gate belongs to a newer epoch")]
    Superseded,
    /// The server cannot be reached; nothing was done.
    #[error("gate unreachable: {0}")]
    Unreachable(String),
    /// The link broke or no answer came in time; the step may have been done.
    #[error("gate did not answer: {0}")]
    Unclear(String),
    /// The server answers, but does not do it as it is now: which refusal, what it means, what to look at.
    #[error("Redis refuses: {0}")]
    Refused(String),
    /// The server must not keep a gate as it is set up.
    #[error("gate refused: {0}")]
    Misconfigured(String),
    /// The server answered what it never should.
    #[error("gate answered nonsense: {0}")]
    Protocol(String),
}

impl GateError {
    /// What is wrong with the server, in a word: that of its refusal, if it refuses.
    pub fn trouble(&self) -> &str {
        match self {
            Self::Refused(problem) => problem.split(':').next().unwrap_or_default(),
            Self::Misconfigured(_) => "misconfigured",
            Self::Unreachable(_) => "unreachable",
            Self::Unclear(_) => "no_answer",
            Self::Lost | Self::Closed | Self::Superseded | Self::Protocol(_) => "broken",
        }
    }

    /// Whether it is about the server, and so about all its gates.
    pub fn is_of_server(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Unclear(_) | Self::Refused(_) | Self::Misconfigured(_))
    }
}

impl StockGate {
    /// A gate in this process.
    pub fn memory() -> Self {
        Self::Memory(Box::default())
    }

    /// A gate in Redis. Connects only when asked something. `links` connections carry everybody's commands.
    pub fn redis(settings: &config::Redis, links: usize) -> Result<Self, String> {
        Ok(Self::Redis(Box::new(RedisGate::new(settings, links)?)))
    }

    /// Identity of the server that keeps the gate; another one after each restart or failover.
    pub async fn server_id(&self) -> Result<String, GateError> {
        match self {
            Self::Memory(_) => Ok(EMBEDDED_SERVER_ID.to_owned()),
            Self::Redis(gate) => gate.server_id().await,
        }
    }

    /// The time by which its sales begin and end: this process', or that of Redis, a little late rather than early.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Memory(_) => Timestamp::now(),
            Self::Redis(gate) => gate.now(),
        }
    }

    /// Takes a unit for each purchase that may have one: window, pause, already purchased, rate limit, stock, in this
    /// order, in one step. Repeating it with the same order ids after [`GateError::Unclear`] takes nothing twice.
    pub async fn reserve(&self, product: ProductId, purchases: &[Purchase]) -> Result<Admission, GateError> {
        match self {
            Self::Memory(gate) => gate.reserve(product, purchases),
            Self::Redis(gate) => gate.reserve(product, purchases).await,
        }
    }

    /// Why a user gets nothing, if that is known without a step at the gate; `None`: it takes one. Redis is not asked: a change
    /// that another instance made there counts within 200 ms.
    pub fn denial(&self, product: ProductId, user: UserId) -> Option<Denial> {
        match self {
            Self::Memory(gate) => gate.denial(product, user),
            Self::Redis(gate) => gate.denial(product, user),
        }
    }

    /// Notes that these orders are in the database and live. Never touches a buyer's mark.
    pub async fn settle(&self, product: ProductId, purchases: &[Purchase]) -> Result<(), GateError> {
        match self {
            Self::Memory(gate) => gate.settle(product, purchases),
            Self::Redis(gate) => gate.settle(product, purchases).await,
        }
    }

    /// Gives back the units of orders that are dead in the database, where the buyer's mark is still theirs (I6).
    /// `epoch` is the product's as the transaction read it that found the orders dead.
    pub async fn release(&self, product: ProductId, epoch: i64, purchases: &[Purchase]) -> Result<(), GateError> {
        match self {
            Self::Memory(gate) => gate.release(product, epoch, purchases),
            Self::Redis(gate) => gate.release(product, epoch, purchases).await,
        }
    }

    /// Takes over the terms of a sale if they are newer than the gate's.
    pub async fn configure(&self, product: ProductId, settings: &SaleSettings) -> Result<(), GateError> {
        match self {
            Self::Memory(gate) => gate.configure(product, settings),
            Self::Redis(gate) => gate.configure(product, settings).await,
        }
    }

    /// Opens the gate of a product that was just made on the server `home`, so that nobody can hold a unit of it.
    /// [`GateError::Superseded`]: there is an open gate already, which stays as it is.
    pub async fn open_new(
        &self,
        product: ProductId,
        server_id: &str,
        epoch: i64,
        settings: &SaleSettings,
    ) -> Result<(), GateError> {
        match self {
            Self::Memory(gate) => gate.open(product, epoch, settings, HeldUnits::expecting(0, settings)),
            Self::Redis(gate) => {
                gate.close(product, server_id, epoch).await?;
                let staging = gate.stage(product, server_id, epoch).await?;
                gate.install(staging, settings).await
            }
        }
    }

    /// Fills and opens a gate in this process with the live orders of the database. Only where nothing can be on its
    /// way: at the start, or for a product whose gate was not open since.
    pub fn open_with(
        &self,
        product: ProductId,
        epoch: i64,
        settings: &SaleSettings,
        held: HeldUnits,
    ) -> Result<(), GateError> {
        match self {
            Self::Memory(gate) => gate.open(product, epoch, settings, held),
            Self::Redis(_) => Err(GateError::Superseded),
        }
    }

    /// Takes away the gate of `epoch` of a sale that ended longer than `age` ago, by the gate's own terms and clock, and has
    /// nothing in flight, in one step: every purchase that it has ever admitted is in the database then. The server that it
    /// was on; `None`: it stays.
    pub async fn retire(&self, product: ProductId, epoch: i64, age: Duration) -> Result<Option<String>, GateError> {
        match self {
            Self::Memory(gate) => Ok(gate.retire(product, epoch, age)?.then(|| EMBEDDED_SERVER_ID.to_owned())),
            Self::Redis(gate) => gate.retire(product, epoch, age).await,
        }
    }

    /// What the gates of these products show; `None` for one that is lost or closed.
    pub async fn view(&self, products: &[ProductId]) -> Result<Vec<Option<GateView>>, GateError> {
        match self {
            Self::Memory(gate) => Ok(gate.view(products)),
            Self::Redis(gate) => gate.view(products).await,
        }
    }

    /// Notes that of this product something is in flight, before anybody is promised it.
    pub async fn note_flight(&self, product: ProductId) -> Result<(), GateError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(gate) => gate.note_flight(product).await,
        }
    }

    /// Notes that all gates were looked at, and these had something in flight.
    pub async fn saw_flights(&self, products: &[ProductId]) -> Result<(), GateError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(gate) => gate.saw_flights(products).await,
        }
    }

    /// The products of which something may be in flight, without a look at each; `None`: nobody knows.
    pub async fn products_in_flight(&self) -> Result<Option<Vec<ProductId>>, GateError> {
        match self {
            Self::Memory(gate) => Ok(Some(gate.products_in_flight())),
            Self::Redis(gate) => gate.products_in_flight().await,
        }
    }

    /// The orders under which a user holds units of these products; `None` for one that is lost or closed.
    pub async fn held_by(&self, user: UserId, products: &[ProductId]) -> Result<Vec<Option<HeldUnit>>, GateError> {
        let held = self.held_by_each(&[user], products).await?;
        Ok(held.into_iter().map(|units| units.and_then(|units| units.into_iter().next())).collect())
    }

    /// The same for several users at once: for each product, what each of them holds.
    pub async fn held_by_each(
        &self,
        users: &[UserId],
        products: &[ProductId],
    ) -> Result<Vec<Option<Vec<HeldUnit>>>, GateError> {
        match self {
            Self::Memory(gate) => Ok(gate.held_by(users, products)),
            Self::Redis(gate) => gate.held_by(users, products).await,
        }
    }

    /// The buyer of an order of this product that is in flight.
    pub async fn buyer_in_flight(&self, product: ProductId, order: OrderId) -> Result<Option<UserId>, GateError> {
        match self {
            Self::Memory(gate) => Ok(gate.buyer_in_flight(product, order)),
            Self::Redis(gate) => gate.buyer_in_flight(product, order).await,
        }
    }

    /// The revision of the click of a purchase that is in flight; `None`: it is not.
    pub async fn revision_in_flight(
        &self,
        product: ProductId,
        purchase: Purchase,
    ) -> Result<Option<Revision>, GateError> {
        match self {
            Self::Memory(gate) => gate.revision_in_flight(product, purchase),
            Self::Redis(gate) => gate.revision_in_flight(product, purchase).await,
        }
    }

    /// What was admitted more than `age` ago and never settled, `most` purchases at most.
    pub async fn stale(&self, product: ProductId, age: Duration, most: usize) -> Result<Stale, GateError> {
        match self {
            Self::Memory(gate) => gate.stale(product, age, most),
            Self::Redis(gate) => gate.stale(product, age, most).await,
        }
    }

    /// The gate that can be lost and must then be rebuilt. One in this process is lost only together with it.
    pub fn shared(&self) -> Option<SharedGate<'_>> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(gate) => Some(SharedGate(gate)),
        }
    }

    /// Whether the store does what a purchase needs. Tried at most once a second, however many ask.
    pub async fn ping(&self) -> Result<(), GateError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(gate) => gate.ping().await,
        }
    }

    /// Checks each second that the store is still the one its connections were made to. Ends with `stop`.
    pub async fn watch(&self, stop: CancellationToken) {
        match self {
            Self::Memory(_) => {}
            Self::Redis(gate) => gate.watch(stop).await,
        }
    }
}

/// What an open gate knows of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldUnit {
    /// Holds none.
    Nothing,
    /// Holds one, under this order.
    Order(OrderId),
}

/// The steps of a rebuild, for a gate outside this process.
#[derive(Clone, Copy)]
pub struct SharedGate<'a>(&'a RedisGate);

impl SharedGate<'_> {
    /// Reads whose gates the server holds, and says that they are this deployment's if they are nobody's.
    pub async fn owner(self, deployment: &str) -> Result<GateOwner, GateError> {
        self.0.owner(deployment).await
    }

    /// Says that the gates are this deployment's, whoever had them before.
    pub async fn take(self, deployment: &str) -> Result<GateOwner, GateError> {
        self.0.take(deployment).await
    }

    /// Looks at the gate of a product on the server of now.
    pub async fn inspect(self, product: ProductId) -> Result<Inspection, GateError> {
        self.0.inspect(product).await
    }

    /// Closes whatever gate of an older epoch there is on the server `home`. After it, no purchase of an older epoch can
    /// be admitted. [`GateError::Superseded`]: there is a gate of a newer epoch.
    pub async fn close(self, product: ProductId, server_id: &str, epoch: i64) -> Result<(), GateError> {
        self.0.close(product, server_id, epoch).await
    }

    /// Gives units to purchases that were promised and set aside, under their own order ids: window, pause and rate do not
    /// count. The gate's epoch, and an answer for each. Repeating it takes nothing twice.
    pub async fn readmit(self, product: ProductId, purchases: &[Purchase]) -> Result<(i64, Vec<Answer>), GateError> {
        self.0.readmit(product, purchases).await
    }

    /// Begins to load buyers beside the closed gate.
    pub async fn stage(self, product: ProductId, server_id: &str, epoch: i64) -> Result<Staging, GateError> {
        self.0.stage(product, server_id, epoch).await
    }

    /// Loads buyers.
    pub async fn add_staged(self, staging: &Staging, held: &[Purchase]) -> Result<(), GateError> {
        self.0.add_staged(staging, held).await
    }

    /// Opens the closed gate with the loaded buyers, in one step. [`GateError::Superseded`]: it is open already, or
    /// of another epoch.
    pub async fn install(self, staging: Staging, settings: &SaleSettings) -> Result<(), GateError> {
        self.0.install(staging, settings).await
    }
}

/// What is left of the rate window for a buyer whose unit is given back. The mark has limited the rate until now: no try
/// after the one that got the unit has counted.
fn rate_wait(purchase: &Purchase, now: Timestamp) -> Duration {
    RATE_WINDOW.saturating_sub(now.since(purchase.order_id.drawn_at()))
}
