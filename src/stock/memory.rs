//! The gate in this process.
//!
//! It outlives nothing: at a start it is filled from the database before anybody can ask it. One lock a product, held
//! for a batch of purchases or for one refusal at a time, some hundred nanoseconds each.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::rate_limiter::RateLimiter;
use super::{Admission, Answer, GateError, GateView, HeldUnit, Stale, rate_wait};
use crate::model::{Denial, OrderId, ProductId, Purchase, Revision, SaleSettings, Timestamp, UserId};

/// Purchases that are settled under one hold of a sale's lock.
const SETTLED_AT_A_TIME: usize = 256;

/// See the module.
#[derive(Default)]
pub struct MemoryGate {
    sales: RwLock<HashMap<ProductId, Mutex<Sale>, RandomState>>,
    tries: RateLimiter,
}

struct Sale {
    epoch: i64,
    settings: SaleSettings,
    /// Every unit that is taken; what remains is the stock less these.
    buyers: HashMap<UserId, Mark, RandomState>,
    /// What was admitted, the oldest first; forgotten from the front once it is settled.
    flight: VecDeque<Flight>,
    in_flight: i64,
    last_flight: Option<NonZeroU32>,
}

/// There is one for each unit that was ever taken, so it is kept small.
#[derive(Clone, Copy)]
struct Mark {
    order_id: OrderId,
    /// Until it is settled.
    flight: Option<NonZeroU32>,
    /// Of the click; of no use once it is settled, for then the order names it.
    revision: Revision,
}

/// The units that live orders hold, read some at a time. They are kept as the gate keeps them, and only once.
pub struct HeldUnits {
    buyers: HashMap<UserId, Mark, RandomState>,
    revision: Revision,
}

impl HeldUnits {
    /// Of a sale with about that many.
    pub fn expecting(units: i64, settings: &SaleSettings) -> Self {
        let room = usize::try_from(units).unwrap_or_default();
        Self { buyers: HashMap::with_capacity_and_hasher(room, RandomState::default()), revision: settings.revision() }
    }

    /// Adds some.
    pub fn extend(&mut self, purchases: impl IntoIterator<Item = Purchase>) {
        let revision = self.revision;
        let settled = |Purchase { order_id, user_id }| (user_id, Mark { order_id, flight: None, revision });
        self.buyers.extend(purchases.into_iter().map(settled));
    }
}

impl Mark {
    fn in_flight(&self) -> Option<Revision> {
        self.flight.map(|_| self.revision)
    }
}

/// A purchase that was admitted. One that was released and admitted again has another number.
struct Flight {
    number: NonZeroU32,
    since: Instant,
    purchase: Purchase,
}

impl Sale {
    fn remaining(&self) -> i64 {
        (self.settings.stock - self.buyers.len() as i64).max(0)
    }

    /// The mark of a purchase that is still in flight.
    fn standing(&self, Flight { number, purchase, .. }: &Flight) -> Option<&Mark> {
        let mark = self.buyers.get(&purchase.user_id);
        mark.filter(|mark| mark.flight == Some(*number) && mark.order_id == purchase.order_id)
    }

    fn is_in_flight(&self, flight: &Flight) -> bool {
        self.standing(flight).is_some()
    }

    /// Notes that a purchase is in flight no longer.
    fn land(&mut self, purchase: &Purchase) {
        if let Some(mark) = self.buyers.get_mut(&purchase.user_id)
            && mark.order_id == purchase.order_id
            && mark.flight.take().is_some()
        {
            self.in_flight -= 1;
        }
    }

    fn forget_settled(&mut self) {
        while self.flight.front().is_some_and(|flight| !self.is_in_flight(flight)) {
            self.flight.pop_front();
        }
    }

    fn admit(
        &mut self,
        product: ProductId,
        purchase: Purchase,
        (now, revision): (Instant, Revision),
        tries: &RateLimiter,
    ) -> Answer {
        let Purchase { order_id, user_id } = purchase;
        if let Some(mark) = self.buyers.get(&user_id) {
            let in_flight = mark.in_flight();
            if mark.order_id == order_id && in_flight.is_none_or(|of_click| of_click == revision) {
                return Answer::Reserved;
            }
            let order_id = mark.order_id;
            return match in_flight {
                Some(revision) => Answer::InFlight { order_id, revision },
                None => Answer::Denied(Denial::AlreadyPurchased(order_id)),
            };
        }
        if self.remaining() == 0 {
            let denial = tries.note(product, user_id, now).map_or_else(Denial::RateLimited, |()| Denial::SoldOut);
            return Answer::Denied(denial);
        }
        // From here on the mark limits the rate.
        if let Some(wait) = tries.wait(product, user_id, now) {
            return Answer::Denied(Denial::RateLimited(wait));
        }
        // Far more flights than can be under way at once, so a number that comes again is long forgotten.
        let number = self.last_flight.and_then(|last| last.checked_add(1)).unwrap_or(NonZeroU32::MIN);
        self.last_flight = Some(number);
        self.buyers.insert(user_id, Mark { order_id, flight: Some(number), revision });
        self.flight.push_back(Flight { number, since: now, purchase });
        self.in_flight += 1;
        Answer::Reserved
    }
}

impl MemoryGate {
    /// Runs `work` on a sale that nobody else looks at meanwhile.
    fn with_sale<T>(&self, product: ProductId, work: impl FnOnce(&mut Sale) -> T) -> Result<T, GateError> {
        let sales = self.sales.read().unwrap_or_else(PoisonError::into_inner);
        let sale = sales.get(&product).ok_or(GateError::Lost)?;
        Ok(work(&mut sale.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(super) fn reserve(&self, product: ProductId, purchases: &[Purchase]) -> Result<Admission, GateError> {
        self.with_sale(product, |sale| {
            let settings = sale.settings;
            // Whether a unit is left is for each purchase to say: its buyer may hold one.
            if let Some(denial) = settings.denial(1, Timestamp::now()) {
                return Admission::Denied(denial);
            }
            let (now, revision) = (Instant::now(), settings.revision());
            let admit = |purchase: &Purchase| sale.admit(product, *purchase, (now, revision), &self.tries);
            let answers = purchases.iter().map(admit).collect();
            Admission::Open { epoch: sale.epoch, revision, answers }
        })
    }

    /// What denies every purchase of a closed sale, and every stranger's of a sold-out one. `None`: ask for a unit.
    pub(super) fn denial(&self, product: ProductId, user: UserId) -> Option<Denial> {
        let now = Timestamp::now();
        let denial = self.with_sale(product, |sale| match sale.settings.denial(sale.remaining(), now) {
            Some(Denial::SoldOut) if sale.buyers.contains_key(&user) => None,
            denial => denial,
        });
        let denial = denial.ok().flatten()?;
        if denial == Denial::SoldOut
            && let Err(wait) = self.tries.note(product, user, Instant::now())
        {
            return Some(Denial::RateLimited(wait));
        }
        Some(denial)
    }

    pub(super) fn settle(&self, product: ProductId, purchases: &[Purchase]) -> Result<(), GateError> {
        // A few at a time: buyers wait for the lock meanwhile.
        for purchases in purchases.chunks(SETTLED_AT_A_TIME) {
            self.with_sale(product, |sale| {
                purchases.iter().for_each(|purchase| sale.land(purchase));
                sale.forget_settled();
            })?;
        }
        Ok(())
    }

    pub(super) fn release(&self, product: ProductId, epoch: i64, purchases: &[Purchase]) -> Result<(), GateError> {
        self.with_sale(product, |sale| {
            if sale.epoch != epoch {
                return Err(GateError::Superseded);
            }
            for purchase in purchases {
                if sale.buyers.get(&purchase.user_id).is_some_and(|mark| mark.order_id == purchase.order_id) {
                    sale.land(purchase);
                    sale.buyers.remove(&purchase.user_id);
                    let wait = rate_wait(purchase, Timestamp::now());
                    self.tries.let_wait(product, purchase.user_id, Instant::now(), wait);
                }
            }
            sale.forget_settled();
            Ok(())
        })?
    }

    pub(super) fn configure(&self, product: ProductId, settings: &SaleSettings) -> Result<(), GateError> {
        self.with_sale(product, |sale| {
            if settings.ver > sale.settings.ver {
                sale.settings = *settings;
            }
        })
    }

    /// Opens a gate with what the database holds, unless one is open already.
    pub(super) fn open(
        &self,
        product: ProductId,
        epoch: i64,
        settings: &SaleSettings,
        held: HeldUnits,
    ) -> Result<(), GateError> {
        let mut sales = self.sales.write().unwrap_or_else(PoisonError::into_inner);
        if sales.contains_key(&product) {
            return Err(GateError::Superseded);
        }
        let buyers = held.buyers;
        let sale =
            Sale { epoch, settings: *settings, buyers, flight: VecDeque::new(), in_flight: 0, last_flight: None };
        sales.insert(product, Mutex::new(sale));
        Ok(())
    }

    /// Takes away a gate of that epoch whose sale ended longer than `age` ago and has nothing in flight. False: it stays.
    pub(super) fn retire(&self, product: ProductId, epoch: i64, age: Duration) -> Result<bool, GateError> {
        let ended_before = Timestamp::now().before(age);
        let mut sales = self.sales.write().unwrap_or_else(PoisonError::into_inner);
        let sale = sales.get_mut(&product).ok_or(GateError::Lost)?;
        let sale = sale.get_mut().unwrap_or_else(PoisonError::into_inner);
        let is_over = sale.settings.ends_at.is_some_and(|end| end <= ended_before);
        if !is_over || sale.in_flight > 0 || sale.epoch != epoch {
            return Ok(false);
        }
        let gone = sales.remove(&product);
        // Its buyers may be millions: others need not wait until they are freed.
        drop(sales);
        drop(gone);
        Ok(true)
    }

    pub(super) fn view(&self, products: &[ProductId]) -> Vec<Option<GateView>> {
        let now = Timestamp::now();
        let view = |sale: &mut Sale| {
            let remaining = sale.remaining();
            GateView {
                remaining,
                state: sale.settings.state(remaining, now),
                ver: sale.settings.ver,
                stock: sale.settings.stock,
                taken: sale.buyers.len() as i64,
                in_flight: sale.in_flight,
                epoch: sale.epoch,
            }
        };
        products.iter().map(|product| self.with_sale(*product, view).ok()).collect()
    }

    /// One look at a number of each sale, some 20 ns.
    pub(super) fn products_in_flight(&self) -> Vec<ProductId> {
        let sales = self.sales.read().unwrap_or_else(PoisonError::into_inner);
        let in_flight = |sale: &Mutex<Sale>| sale.lock().unwrap_or_else(PoisonError::into_inner).in_flight > 0;
        sales.iter().filter(|(_, sale)| in_flight(sale)).map(|(product, _)| *product).collect()
    }

    pub(super) fn stale(&self, product: ProductId, age: Duration, most: usize) -> Result<Stale, GateError> {
        let now = Instant::now();
        self.with_sale(product, |sale| {
            let old = sale.flight.iter().take_while(|flight| now.saturating_duration_since(flight.since) >= age);
            let standing = |flight: &Flight| Some((flight.purchase, sale.standing(flight)?.revision));
            let (purchases, revisions) = old.filter_map(standing).take(most).unzip();
            Stale { epoch: sale.epoch, purchases, revisions }
        })
    }

    pub(super) fn held_by(&self, users: &[UserId], products: &[ProductId]) -> Vec<Option<Vec<HeldUnit>>> {
        let held = |sale: &mut Sale| {
            let unit = |user| sale.buyers.get(user).map_or(HeldUnit::Nothing, |mark| HeldUnit::Order(mark.order_id));
            users.iter().map(unit).collect()
        };
        products.iter().map(|product| self.with_sale(*product, held).ok()).collect()
    }

    pub(super) fn revision_in_flight(
        &self,
        product: ProductId,
        Purchase { order_id, user_id }: Purchase,
    ) -> Result<Option<Revision>, GateError> {
        self.with_sale(product, |sale| {
            sale.buyers.get(&user_id).filter(|mark| mark.order_id == order_id).and_then(Mark::in_flight)
        })
    }

    pub(super) fn buyer_in_flight(&self, product: ProductId, order: OrderId) -> Option<UserId> {
        let buyer = self.with_sale(product, |sale| {
            let mut flights = sale.flight.iter().filter(|flight| sale.is_in_flight(flight));
            flights.find(|flight| flight.purchase.order_id == order).map(|flight| flight.purchase.user_id)
        });
        buyer.ok().flatten()
    }
}
