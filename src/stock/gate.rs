//! The gate of either backend, in this process or in Redis. In this process each method is one step, but for
//! [`StockGate::mark_written`], which takes some purchases at a time. In Redis most are: what is about many purchases is one step for each 500 of them, and [`StockGate::open_new`] is three.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::memory::{LoadedBuyers, MemoryGate};
use super::redis::{RedisGate, ServerIds};
use super::shared::SharedGate;
use super::types::{Admission, Answer, GateError, GateView, Holding, PaymentAdmission, Release, Stale};
use crate::config;
use crate::model::{
    Click, Denial, LatePayment, OrderId, ProductId, Purchase, Revision, SaleSettings, Timestamp, UserId,
};

/// Identity of a gate in this process.
const EMBEDDED_SERVER_ID: &str = "embedded";

/// Which servers keep gates, see [`StockGate::servers`].
pub struct GateServers(Option<ServerIds>);

/// The gates of all products, of the backend that was configured: each call names the product.
pub enum StockGate {
    /// In this process.
    Memory(Box<MemoryGate>),
    /// Redis, one Lua script a step.
    Redis(Box<RedisGate>),
}

impl StockGate {
    /// A gate in this process.
    pub fn memory() -> Self {
        Self::Memory(Box::default())
    }

    /// A gate in Redis. Connects only when asked something. `links` connections to each master carry the
    /// steps of purchases, and of what becomes of them. Most who only look have other connections.
    pub fn redis(settings: &config::Redis, links: usize) -> Result<Self, String> {
        Ok(Self::Redis(Box::new(RedisGate::new(settings, links)?)))
    }

    /// Which servers keep gates, asked anew: another identity after each restart or failover. An error: none of them answers.
    pub async fn servers(&self) -> Result<GateServers, GateError> {
        match self {
            Self::Memory(_) => Ok(GateServers(None)),
            Self::Redis(gate) => gate.server_ids().await.map(Some).map(GateServers),
        }
    }

    /// Identity of the server that keeps a product's gate; `None`: it did not answer when it was asked.
    pub async fn server_of(&self, servers: &GateServers, product: ProductId) -> Option<String> {
        match (self, &servers.0) {
            (Self::Redis(gate), Some(ids)) => gate.server_of(ids, product).await,
            _ => Some(EMBEDDED_SERVER_ID.to_owned()),
        }
    }

    /// The time by which its sales begin and end: this process', or that of Redis, a little late rather than early.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Memory(_) => Timestamp::now(),
            Self::Redis(gate) => gate.now(),
        }
    }

    /// Takes the units of each purchase that may have them. Checked in this order: sale window, pause, already purchased, units
    /// that an order may have, rate limit, stock, the share of its address. In memory it is one step for all; in Redis one step for each 500
    /// purchases, so after an error the first ones may hold units. Repeating it with the same order ids takes nothing twice.
    pub async fn reserve(&self, product: ProductId, clicks: &[Click]) -> Result<Admission, GateError> {
        match self {
            Self::Memory(gate) => gate.reserve(product, clicks),
            Self::Redis(gate) => gate.reserve(product, clicks).await,
        }
    }

    /// Why a user gets nothing, if that is known without a step at the gate; `None`: it takes one. Redis is not asked: a change
    /// that another instance made there counts within 200 ms. Of a full sale it counts as a try: who asks again within a second
    /// is denied for that.
    pub fn denial(&self, product: ProductId, user: UserId) -> Option<Denial> {
        match self {
            Self::Memory(gate) => gate.denial(product, user),
            Self::Redis(gate) => gate.denial(product, user),
        }
    }

    /// Marks reservations as written: these orders are in the database and live, so they are in flight no longer. Changes nobody's unit.
    pub async fn mark_written(&self, product: ProductId, purchases: &[Purchase]) -> Result<(), GateError> {
        match self {
            Self::Memory(gate) => gate.mark_written(product, purchases),
            Self::Redis(gate) => gate.mark_written(product, purchases).await,
        }
    }

    /// Gives back the units of lives that have ended in the database, where the reservation is still theirs (I6): another life of
    /// the same order keeps its own. `epoch` is the product's as the transaction read it that found the orders dead.
    pub async fn release<T: Into<Release> + Copy>(
        &self,
        product: ProductId,
        epoch: i64,
        ended: &[T],
    ) -> Result<(), GateError> {
        let ended: Vec<Release> = ended.iter().map(|ended| (*ended).into()).collect();
        match self {
            Self::Memory(gate) => gate.release(product, epoch, &ended),
            Self::Redis(gate) => gate.release(product, epoch, &ended).await,
        }
    }

    /// Takes the units of a dead order for a late payment, all or none; sale window, pause and rate limit do not count. If its first life
    /// still holds them, they go over. Repeating it takes nothing twice.
    pub async fn admit_payment(&self, product: ProductId, late: &LatePayment) -> Result<PaymentAdmission, GateError> {
        match self {
            Self::Memory(gate) => gate.admit_payment(product, late),
            Self::Redis(gate) => gate.admit_payment(product, late).await,
        }
    }

    /// Marks the reservation of a late payment as revived: the database has its order, live again. The entry in flight of this call
    /// goes, and no other of the payment. `epoch` as for [`StockGate::release`].
    pub async fn mark_revived(&self, product: ProductId, epoch: i64, late: &LatePayment) -> Result<(), GateError> {
        match self {
            Self::Memory(gate) => gate.mark_revived(product, epoch, late),
            Self::Redis(gate) => gate.mark_revived(product, epoch, late).await,
        }
    }

    /// Gives units to purchases that were promised and set aside, under their own order ids: sale window, pause and rate do not
    /// count. `revision`: of their clicks, if that is known. The gate's epoch, and an answer for each. Repeating it takes nothing twice.
    pub async fn readmit(
        &self,
        product: ProductId,
        revision: Option<Revision>,
        purchases: &[Purchase],
    ) -> Result<(i64, Vec<Answer>), GateError> {
        match self {
            Self::Memory(gate) => gate.readmit(product, revision, purchases),
            Self::Redis(gate) => gate.readmit(product, purchases).await,
        }
    }

    /// Takes over the settings of a sale if they are newer than the gate's.
    pub async fn configure(&self, product: ProductId, settings: &SaleSettings) -> Result<(), GateError> {
        match self {
            Self::Memory(gate) => gate.configure(product, settings),
            Self::Redis(gate) => gate.configure(product, settings).await,
        }
    }

    /// Opens the gate of a product that was just made on the server `server_id`, so that nobody can hold a unit of it.
    /// [`GateError::AnotherGate`]: there is an open gate already, which stays as it is.
    pub async fn open_new(
        &self,
        product: ProductId,
        server_id: &str,
        epoch: i64,
        settings: &SaleSettings,
    ) -> Result<(), GateError> {
        match self {
            Self::Memory(gate) => gate.open(product, epoch, settings, LoadedBuyers::expecting(0, settings)),
            Self::Redis(gate) => {
                gate.close_new(product, server_id, epoch).await?;
                let staging = gate.stage(product, server_id, epoch).await?;
                gate.install(staging, settings).await
            }
        }
    }

    /// Fills and opens a gate in this process with the live orders of the database. Only where nothing can be on its
    /// way: at the start, or for a product whose gate was not open since. [`GateError::AnotherGate`]: it is open already. One
    /// in Redis is never filled this way, and says the same.
    pub fn open_with(
        &self,
        product: ProductId,
        epoch: i64,
        settings: &SaleSettings,
        held: LoadedBuyers,
    ) -> Result<(), GateError> {
        match self {
            Self::Memory(gate) => gate.open(product, epoch, settings, held),
            Self::Redis(_) => Err(GateError::AnotherGate),
        }
    }

    /// Takes away the gate of `epoch` of a sale that ended longer than `age` ago, by the gate's own settings and clock, and has
    /// nothing in flight, in one step: every purchase that it has ever admitted is in the database then. The server that it
    /// was on; `None`: it stays.
    pub async fn retire(&self, product: ProductId, epoch: i64, age: Duration) -> Result<Option<String>, GateError> {
        match self {
            Self::Memory(gate) => Ok(gate.retire(product, epoch, age)?.then(|| EMBEDDED_SERVER_ID.to_owned())),
            Self::Redis(gate) => gate.retire(product, epoch, age).await,
        }
    }

    /// What the gates of these products show; `None` for one that is lost, closed, or on a server that does not answer while others
    /// do. An error: none of them answers.
    pub async fn view(&self, products: &[ProductId]) -> Result<Vec<Option<GateView>>, GateError> {
        some_or_error(self.view_each(products).await)
    }

    /// What the gates of these products show, each by itself; `None` for one that is lost or closed.
    pub async fn view_each(&self, products: &[ProductId]) -> Vec<Result<Option<GateView>, GateError>> {
        match self {
            Self::Memory(gate) => gate.view(products).into_iter().map(Ok).collect(),
            Self::Redis(gate) => gate.view(products).await,
        }
    }

    /// Notes that something of these products is in flight. This runs beside the publish. If it fails, purchases are promised all
    /// the same, so the note may be missing until the next sweep.
    pub async fn note_in_flight(&self, products: impl Iterator<Item = ProductId>) -> Result<(), GateError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(gate) => gate.note_in_flight(products).await,
        }
    }

    /// Notes that all gates were looked at, and these had something in flight.
    pub async fn saw_in_flight(&self, products: &[ProductId]) -> Result<(), GateError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(gate) => gate.saw_in_flight(products).await,
        }
    }

    /// The products of which something may be in flight, without a look at each; `None`: nobody knows.
    pub async fn products_in_flight(&self) -> Result<Option<Vec<ProductId>>, GateError> {
        match self {
            Self::Memory(gate) => Ok(Some(gate.products_in_flight())),
            Self::Redis(gate) => gate.products_in_flight().await,
        }
    }

    /// The orders under which a user holds units of these products; `None` for one that is lost or closed, or on a server that does not
    /// answer where there are several.
    pub async fn held_by(&self, user: UserId, products: &[ProductId]) -> Result<Vec<Option<Holding>>, GateError> {
        let held = self.held_by_each(&[user], products).await?;
        Ok(held.into_iter().map(|units| units.and_then(|units| units.into_iter().next())).collect())
    }

    /// The same for several users at once: for each product, what each of them holds.
    pub async fn held_by_each(
        &self,
        users: &[UserId],
        products: &[ProductId],
    ) -> Result<Vec<Option<Vec<Holding>>>, GateError> {
        match self {
            Self::Memory(gate) => Ok(gate.held_by(users, products)),
            Self::Redis(gate) => {
                let held = gate.held_by(users, products).await;
                // Of several products somebody asks for a list, which lacks those.
                if gate.is_on_several_servers() && products.len() > 1 {
                    return Ok(held.into_iter().map(|held| held.ok().flatten()).collect());
                }
                some_or_error(held)
            }
        }
    }

    /// A purchase of this product that is in flight, by its order.
    pub async fn find_in_flight(&self, product: ProductId, order: OrderId) -> Result<Option<Purchase>, GateError> {
        match self {
            Self::Memory(gate) => Ok(gate.find_in_flight(product, order)),
            Self::Redis(gate) => gate.find_in_flight(product, order).await,
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

    /// What was admitted more than `age` ago and is still in flight, `most` purchases and late payments at most.
    pub async fn stale(&self, product: ProductId, age: Duration, most: usize) -> Result<Stale, GateError> {
        match self {
            Self::Memory(gate) => gate.stale(product, age, most),
            Self::Redis(gate) => gate.stale(product, age, most).await,
        }
    }

    /// Whether gates are on several servers, so that one of them may hang while others answer.
    pub fn is_on_several_servers(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(gate) => gate.is_on_several_servers(),
        }
    }

    /// The gate that can be lost and must then be rebuilt. One in this process is lost only together with it.
    pub fn shared(&self) -> Option<SharedGate<'_>> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(gate) => Some(SharedGate(gate)),
        }
    }

    /// Whether the store does what a purchase needs. Probed at most once a second, however many ask.
    pub async fn ping(&self) -> Result<(), GateError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(gate) => gate.ping().await,
        }
    }

    /// Servers that keep gates and could not be used when they were probed last.
    pub fn servers_down(&self) -> usize {
        match self {
            Self::Memory(_) => 0,
            Self::Redis(gate) => gate.servers_down(),
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

/// An answer that could not be had counts as none, unless no other was had.
fn some_or_error<T>(answers: Vec<Result<Option<T>, GateError>>) -> Result<Vec<Option<T>>, GateError> {
    if !answers.is_empty() && answers.iter().all(Result::is_err) {
        return answers.into_iter().collect();
    }
    Ok(answers.into_iter().map(|answer| answer.ok().flatten()).collect())
}
