//! The purchase, from the click to the promise.
//!
//! Clicks wait in a [`PurchaseBatcher`]. Its task takes what waits, never waits for more, and sends the purchases of a product on
//! together: one step at the gate, one message, one confirm. Meanwhile the next ones gather, so the busier the sale, the
//! more of them go together; a purchase alone in its lane goes at once.
//!
//! A client that hangs up cannot cut a purchase in two, for the lane's task is another than its own.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::join_all;
use moka::future::Cache;
use tokio::sync::{mpsc, oneshot};

use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::{Denial, OrderId, OrderIds, ProductId, Purchase, PurchaseBatch, Revision, Sale, UserId};
use crate::queue::{BATCH_MAX, OrderQueue};
use crate::services::deployment::PROMISE_MAX_AGE;
use crate::services::known_products::KnownProducts;
use crate::services::recovery::Rebuilder;
use crate::stock::{Admission, Answer, GateError, StockGate};
use crate::supervision::Supervisor;
use crate::telemetry::Metrics;
use crate::telemetry::SharedOutage;

/// A purchase that has waited this long for its turn is turned away with nothing taken.
const TURN_MAX_WAIT: Duration = Duration::from_millis(500);
/// Purchases that a lane takes at a time, so that it keeps up with a queue that takes its time to confirm.
const MAX_TAKEN: usize = 4 * BATCH_MAX;
/// Orders remembered as confirmed, at least; twice as many at most.
const CONFIRMED_MEMORY: usize = 50_000;

/// Name of the lanes' tasks.
const TASK: &str = "purchases";
/// A product that does not exist, or whose sale has ended and whose gate was taken away, is looked for again after this.
const MISSING_FOR: Duration = Duration::from_millis(200);
const MAX_MISSING: u64 = 10_000;

/// What lanes share.
pub struct Purchases {
    db: Db,
    gate: Arc<StockGate>,
    queue: Arc<OrderQueue>,
    rebuilder: Arc<Rebuilder>,
    metrics: Arc<Metrics>,
    known: Arc<KnownProducts>,
    supervisor: Supervisor,
    /// What the log is told when many purchases fail.
    reserving: SharedOutage,
    publishing: SharedOutage,
    confirmed: ConfirmedOrders,
    /// Why products had no gate a moment ago.
    missing: Cache<ProductId, Missing>,
}

/// Why a product has no gate and needs none.
#[derive(Debug, Clone, Copy)]
enum Missing {
    /// There is no such product.
    Unknown,
    /// Its sale has ended.
    Ended,
}

/// Where clicks queue up.
pub struct PurchaseBatcher {
    purchases: Arc<Purchases>,
    tickets: mpsc::Sender<Ticket>,
    desk: Option<Desk>,
}

/// Where a thread is handed its answers, all of a message at a time: each hand-over costs a system call. What waits here
/// is bounded by the lane.
type Desk = mpsc::UnboundedSender<Vec<(Reply, Result<OrderId>)>>;

/// Wakes the click.
type Reply = oneshot::Sender<Result<OrderId>>;

/// A click that waits for its answer.
struct Ticket {
    product: ProductId,
    purchase: Purchase,
    clicked_at: Instant,
    reply: Reply,
    desk: Option<Desk>,
}

/// Clicks on one product that hold units of one epoch, and under which orders.
struct Admitted {
    product: ProductId,
    epoch: i64,
    reserved: Vec<Reserved>,
}

/// A click that holds a unit.
struct Reserved {
    ticket: Ticket,
    order_id: OrderId,
    /// The product's revision at the click: at the first one, if this is a repeat.
    revision: Revision,
}

impl PurchaseBatcher {
    /// A lane with room for `capacity` waiting purchases, and its task, which ends once the lane is dropped and its work
    /// is done.
    pub fn open(purchases: &Arc<Purchases>, capacity: usize) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (tickets, waiting) = mpsc::channel(capacity);
        let work = purchases.supervisor.vital(TASK, purchases.clone().serve_all(waiting));
        (Self { purchases: purchases.clone(), tickets, desk: None }, work)
    }

    /// The same lane for clicks of another thread than its task's, and what hands that thread the answers.
    pub fn attach_worker(&self) -> (Self, impl Future<Output = ()> + 'static) {
        let (desk, mut handed): (Desk, _) = mpsc::unbounded_channel();
        let batcher = Self { purchases: self.purchases.clone(), tickets: self.tickets.clone(), desk: Some(desk) };
        let handing = async move {
            while let Some(answers) = handed.recv().await {
                for (reply, answer) in answers {
                    // A client that has hung up finds its order in `GET /orders`.
                    let _ = reply.send(answer);
                }
            }
        };
        (batcher, self.purchases.supervisor.vital("purchase-replies", handing))
    }

    /// Buys one unit. `Ok` is a promise: the order exists from here on, whatever crashes (I2).
    pub async fn buy(&self, user_id: UserId, product: ProductId) -> Result<OrderId> {
        let answer = match self.purchases.gate.denial(product, user_id) {
            Some(denial) => Err(denial.into()),
            None => self.take_place(user_id, product).await,
        };
        self.purchases.metrics.purchase(answer.as_ref().map_or_else(Error::code, |_| "accepted"));
        answer
    }

    async fn take_place(&self, user_id: UserId, product: ProductId) -> Result<OrderId> {
        if !self.purchases.queue.is_ready() {
            return Err(Error::Unavailable("the queue is not available".to_owned()));
        }
        let clicked_at = Instant::now();
        if !self.purchases.rebuilder.deployment().may_promise(clicked_at) {
            return Err(left());
        }
        let (reply, answer) = oneshot::channel();
        let purchase = Purchase { order_id: OrderId::draw(product), user_id };
        let ticket = Ticket { product, purchase, clicked_at, reply, desk: self.desk.clone() };
        self.tickets.try_send(ticket).map_err(|_| Error::Unavailable("too many purchases wait".to_owned()))?;
        answer.await.map_err(|_| Error::Unavailable("nobody answered the purchase".to_owned()))?
    }
}

impl Purchases {
    /// Admits at `gate`, publishes to `queue`; asks `db` about products without a gate.
    pub fn new(
        db: Db,
        gate: Arc<StockGate>,
        queue: Arc<OrderQueue>,
        rebuilder: Arc<Rebuilder>,
        known: Arc<KnownProducts>,
        metrics: Arc<Metrics>,
        supervisor: Supervisor,
    ) -> Self {
        let missing = Cache::builder().max_capacity(MAX_MISSING).time_to_live(MISSING_FOR).build();
        let confirmed = ConfirmedOrders::default();
        let reserving = SharedOutage::new("Could not take units at the gate");
        let publishing = SharedOutage::new("Purchases were not confirmed");
        Self { db, gate, queue, rebuilder, metrics, known, supervisor, reserving, publishing, confirmed, missing }
    }

    async fn serve_all(self: Arc<Self>, mut tickets: mpsc::Receiver<Ticket>) {
        let mut waiting = Vec::with_capacity(MAX_TAKEN);
        while tickets.recv_many(&mut waiting, MAX_TAKEN).await > 0 {
            let groups = by_product(waiting.drain(..)).into_iter();
            join_all(groups.map(|(product, group)| self.serve_or_drop(product, group))).await;
        }
    }

    /// A panic costs the purchases of one product and round, as a crash would: they are answered 503, and the sweeper
    /// decides what the gate has taken for them. The lane goes on.
    async fn serve_or_drop(self: &Arc<Self>, product: ProductId, tickets: Vec<Ticket>) {
        if AssertUnwindSafe(self.serve(product, tickets)).catch_unwind().await.is_err() {
            self.supervisor.survived(TASK);
        }
    }

    async fn serve(self: &Arc<Self>, product: ProductId, tickets: Vec<Ticket>) {
        if let Some(admitted) = self.admit(product, tickets).await {
            join_all(admitted.into_messages().map(|message| self.publish(message))).await;
        }
    }

    /// Asks the gate for units for tickets of one product, and answers those that get none.
    async fn admit(self: &Arc<Self>, product: ProductId, mut tickets: Vec<Ticket>) -> Option<Admitted> {
        tickets.retain(|ticket| !ticket.reply.is_closed());
        let now = Instant::now();
        let late = tickets.extract_if(.., |ticket| now.saturating_duration_since(ticket.clicked_at) > TURN_MAX_WAIT);
        refuse_all(late, || Error::Unavailable("waited too long for its turn".to_owned()));
        if tickets.is_empty() {
            return None;
        }
        crash_point!("before_reserve");
        let purchases: Vec<Purchase> = tickets.iter().map(|ticket| ticket.purchase).collect();
        let begun = Instant::now();
        let admission = self.gate.reserve(product, &purchases).await;
        match &admission {
            Ok(_) => {
                self.reserving.worked();
                self.metrics.gate_seconds.observe(begun.elapsed().as_secs_f64());
            }
            Err(_) => self.metrics.gate_failures.inc(),
        }
        match admission {
            Ok(Admission::Open { epoch, .. }) if !self.rebuilder.deployment().is_current(product, epoch) => {
                refuse_all(tickets, left);
            }
            Ok(Admission::Open { epoch, revision, answers }) => {
                let reserved = self.answer(tickets, answers, revision);
                return (!reserved.is_empty()).then_some(Admitted { product, epoch, reserved });
            }
            Ok(Admission::Denied(denial)) => refuse_all(tickets, || denial.into()),
            Err(GateError::Lost) => match self.missing.get(&product).await {
                Some(why) => refuse_all(tickets, || why.into()),
                None => {
                    let purchases = self.clone();
                    tokio::spawn(async move { purchases.explain_missing_gate(product, tickets).await });
                }
            },
            Err(error) => {
                // What is the server's own trouble, and a gate that is being rebuilt, others tell of.
                if !error.is_of_server() && error != GateError::Closed {
                    self.reserving.failed("gate", &error, "look for what the log says of Redis");
                }
                refuse_all(tickets, || error.clone().into());
            }
        }
        None
    }

    /// Answers the tickets that the gate refuses; the others must be published.
    fn answer(&self, tickets: Vec<Ticket>, answers: Vec<Answer>, revision: Revision) -> Vec<Reserved> {
        let mut to_publish = Vec::with_capacity(tickets.len());
        let mut refused = Vec::new();
        for (ticket, answer) in tickets.into_iter().zip(answers) {
            let refusal = match answer {
                Answer::Reserved => {
                    let order_id = ticket.purchase.order_id;
                    to_publish.push(Reserved { ticket, order_id, revision });
                    continue;
                }
                // Whoever published it may have died before the confirm: only one that is seen makes it a promise.
                Answer::InFlight { order_id, revision } if !self.confirmed.contains(order_id) => {
                    to_publish.push(Reserved { ticket, order_id, revision });
                    continue;
                }
                Answer::InFlight { order_id, .. } => Denial::AlreadyPurchased(order_id).into(),
                Answer::Denied(denial) => denial.into(),
                Answer::Unreadable => Error::Unavailable("the buyer's mark cannot be read".to_owned()),
            };
            refused.push((ticket, Err(refusal)));
        }
        answer_all(refused);
        to_publish
    }

    /// Publishes reservations and answers once they are confirmed. Releases nothing, whatever happens: what a failed
    /// publish leaves is decided in the database later (I5).
    async fn publish(&self, Admitted { product, epoch, reserved }: Admitted) {
        // Only a repeat brings an order id that others may bring, too.
        let repeats = reserved.iter().any(|held| held.order_id != held.ticket.purchase.order_id);
        let mut seen = OrderIds::default();
        let items: Vec<Purchase> = reserved
            .iter()
            .map(|held| Purchase { order_id: held.order_id, user_id: held.ticket.purchase.user_id })
            .filter(|item| !repeats || seen.insert(item.order_id))
            .collect();
        let revision = reserved.first().map(|held| held.revision);
        let batch = PurchaseBatch { product_id: product, epoch, revision, items };
        crash_point!("before_publish");
        let begun = Instant::now();
        let (confirmed, noted) = tokio::join!(self.queue.publish(&batch), self.gate.note_in_flight(product));
        if let Err(error) = noted {
            // The next sweep notes it: until then the list of a buyer who asks another instance may lack an order.
            tracing::debug!(product.id = %product, %error, "Could not note what is in flight");
        }
        match &confirmed {
            Ok(()) => {
                self.publishing.worked();
                self.metrics.publish_seconds.observe(begun.elapsed().as_secs_f64());
            }
            Err(error) => self.metrics.publish_failures.with_label_values(&[error.as_str()]).inc(),
        }
        match confirmed {
            Ok(()) => {
                crash_point!("before_reply");
                self.confirmed.remember(batch.items.iter().map(|item| item.order_id));
                // After the confirm, not before the publish: by this time a rebuilt gate may not know the orders.
                let now = Instant::now();
                let deployment = self.rebuilder.deployment();
                if !deployment.may_promise(now) || !deployment.is_current(product, epoch) {
                    refuse_all(reserved.into_iter().map(|reserved| reserved.ticket), left);
                    return;
                }
                answer_all(reserved.into_iter().map(|Reserved { ticket, order_id, .. }| {
                    let answer = ticket.promised(order_id, now);
                    (ticket, answer)
                }));
            }
            Err(error) => {
                self.publishing.failed(error.as_str(), &error, "look for what the log says of the queue");
                refuse_all(reserved.into_iter().map(|held| held.ticket), || error.into());
            }
        }
    }

    /// A product without a gate: unknown, or ended, or its gate was lost. One look for all who click meanwhile.
    async fn explain_missing_gate(&self, product: ProductId, tickets: Vec<Ticket>) {
        match self.missing.try_get_with(product, self.why_missing(product)).await {
            Ok(why) => refuse_all(tickets, || why.into()),
            Err(error) => refuse_all(tickets, || Error::Unavailable(error.to_string())),
        }
    }

    async fn why_missing(&self, product: ProductId) -> Result<Missing> {
        match self.find_sale(product).await? {
            None => Ok(Missing::Unknown),
            Some(sale) if sale.had_ended(self.gate.now()) => Ok(Missing::Ended),
            Some(_) => {
                self.rebuilder.start(product);
                Err(Error::Unavailable("the gate is lost".to_owned()))
            }
        }
    }

    async fn find_sale(&self, product: ProductId) -> Result<Option<Sale>> {
        if !self.known.may_exist(product).await? {
            return Ok(None);
        }
        Ok(self.db.read(move |conn| Box::pin(conn.find_sale(product))).await?)
    }
}

impl From<Missing> for Error {
    fn from(why: Missing) -> Self {
        match why {
            Missing::Unknown => Self::ProductNotFound,
            Missing::Ended => Denial::Ended.into(),
        }
    }
}

impl Admitted {
    /// As many at a time as a message holds, those of one revision.
    fn into_messages(self) -> impl Iterator<Item = Self> {
        let Self { product, epoch, mut reserved } = self;
        // Only a repeat after a change of the product brings another revision than the others have.
        if !reserved.is_sorted_by_key(|held| held.revision) {
            reserved.sort_by_key(|held| held.revision);
        }
        let mut reserved = reserved.into_iter();
        std::iter::from_fn(move || {
            let waiting = reserved.as_slice();
            let revision = waiting.first()?.revision;
            let count = waiting.iter().take(BATCH_MAX).take_while(|held| held.revision == revision).count();
            Some(Self { product, epoch, reserved: reserved.by_ref().take(count).collect() })
        })
    }
}

impl Ticket {
    /// The answer to a purchase whose order is confirmed to be in the queue.
    fn promised(&self, order_id: OrderId, now: Instant) -> Result<OrderId> {
        if now.saturating_duration_since(self.clicked_at) > PROMISE_MAX_AGE {
            Err(Error::Unavailable("confirmed too late".to_owned()))
        } else if order_id == self.purchase.order_id {
            Ok(order_id)
        } else {
            Err(Denial::AlreadyPurchased(order_id).into())
        }
    }
}

/// What this instance asks may be another gate than that of the deployment.
fn left() -> Error {
    Error::Unavailable("the gate was left for another one".to_owned())
}

fn refuse_all(tickets: impl IntoIterator<Item = Ticket>, why: impl Fn() -> Error) {
    answer_all(tickets.into_iter().map(|ticket| (ticket, Err(why()))));
}

/// Answers those of this thread one by one, and hands the others over together.
fn answer_all(answers: impl IntoIterator<Item = (Ticket, Result<OrderId>)>) {
    let mut desks: Vec<(Desk, Vec<_>)> = Vec::new();
    for (Ticket { reply, desk, .. }, answer) in answers {
        let Some(desk) = desk else {
            let _ = reply.send(answer);
            continue;
        };
        match desks.iter_mut().find(|(other, _)| other.same_channel(&desk)) {
            Some((_, handed)) => handed.push((reply, answer)),
            None => desks.push((desk, vec![(reply, answer)])),
        }
    }
    for (desk, handed) in desks {
        // A thread that has ended has nobody left to answer.
        let _ = desk.send(handed);
    }
}

/// Groups tickets by product; within a product they keep their order.
fn by_product(tickets: impl Iterator<Item = Ticket>) -> Vec<(ProductId, Vec<Ticket>)> {
    let mut groups: Vec<(ProductId, Vec<Ticket>)> = Vec::new();
    for ticket in tickets {
        match groups.iter_mut().find(|(product, _)| *product == ticket.product) {
            Some((_, group)) => group.push(ticket),
            None => groups.push((ticket.product, vec![ticket])),
        }
    }
    groups
}

/// Orders whose confirm this instance has seen, the newest [`CONFIRMED_MEMORY`] at least. One that is forgotten is
/// published once more when its buyer asks again, which is harmless.
#[derive(Default)]
struct ConfirmedOrders(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: OrderIds,
    old: OrderIds,
}

impl ConfirmedOrders {
    fn remember(&self, orders: impl Iterator<Item = OrderId>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.young.extend(orders);
        if known.young.len() >= CONFIRMED_MEMORY {
            known.old = std::mem::take(&mut known.young);
        }
    }

    fn contains(&self, order: OrderId) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.young.contains(&order) || known.old.contains(&order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_confirmed_orders_are_remembered_and_the_oldest_forgotten() {
        let confirmed = ConfirmedOrders::default();
        let product = ProductId::try_from(1).unwrap();
        let draw = || OrderId::draw(product);
        let first = draw();
        confirmed.remember([first].into_iter());
        let last: Vec<OrderId> = (0..CONFIRMED_MEMORY).map(|_| draw()).collect();
        confirmed.remember(last.iter().copied());
        assert!(confirmed.contains(first), "one generation later it is still there");
        confirmed.remember((0..CONFIRMED_MEMORY).map(|_| draw()));
        assert!(!confirmed.contains(first));
    }
}
