//! The gate in this process.
//!
//! It outlives nothing: at a start it is filled from the database before anybody can ask it. One lock a product, held
//! for a batch of purchases or for one refusal at a time, some hundred nanoseconds each.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::recent_tries::RecentTries;
use super::{Admission, Answer, GateError, GateView, HeldUnit, Refusal, Stale, rate_wait};
use crate::model::{OrderId, ProductId, Purchase, SaleState, SaleTerms, Timestamp, UserId};

/// See the module.
#[derive(Default)]
pub struct MemoryGate {
    sales: RwLock<HashMap<ProductId, Arc<Mutex<Sale>>, RandomState>>,
    tries: RecentTries,
}

struct Sale {
    epoch: i64,
    terms: SaleTerms,
    /// Every unit that is taken; what remains is the stock less these.
    buyers: HashMap<UserId, Mark, RandomState>,
    /// What was admitted, the oldest first; forgotten from the front once it is settled.
    flight: VecDeque<(Instant, Purchase)>,
    in_flight: i64,
}

#[derive(Clone, Copy)]
struct Mark {
    order_id: OrderId,
    /// When it was admitted, until it is settled.
    in_flight_since: Option<Instant>,
}

impl Sale {
    fn remaining(&self) -> i64 {
        (self.terms.stock - self.buyers.len() as i64).max(0)
    }

    /// Whether an entry of `flight` still stands: an order that was released and admitted again has another one.
    fn is_in_flight(&self, (at, purchase): &(Instant, Purchase)) -> bool {
        let mark = self.buyers.get(&purchase.user_id);
        mark.is_some_and(|mark| mark.in_flight_since == Some(*at) && mark.order_id == purchase.order_id)
    }

    /// Notes that a purchase is in flight no longer.
    fn land(&mut self, purchase: &Purchase) {
        if let Some(mark) = self.buyers.get_mut(&purchase.user_id)
            && mark.order_id == purchase.order_id
            && mark.in_flight_since.take().is_some()
        {
            self.in_flight -= 1;
        }
    }

    fn forget_settled(&mut self) {
        while self.flight.front().is_some_and(|entry| !self.is_in_flight(entry)) {
            self.flight.pop_front();
        }
    }

    fn admit(&mut self, product: ProductId, purchase: Purchase, now: Instant, tries: &RecentTries) -> Answer {
        let Purchase { order_id, user_id } = purchase;
        if let Some(mark) = self.buyers.get(&user_id) {
            if mark.order_id == order_id {
                return Answer::Taken;
            }
            return Answer::Already { order_id: mark.order_id, in_flight: mark.in_flight_since.is_some() };
        }
        if self.remaining() == 0 {
            return tries.note(product, user_id, now).map_or_else(Answer::RateLimited, |()| Answer::SoldOut);
        }
        // From here on the mark limits the rate.
        if let Some(wait) = tries.wait(product, user_id, now) {
            return Answer::RateLimited(wait);
        }
        self.buyers.insert(user_id, Mark { order_id, in_flight_since: Some(now) });
        self.flight.push_back((now, purchase));
        self.in_flight += 1;
        Answer::Taken
    }
}

impl MemoryGate {
    fn sale(&self, product: ProductId) -> Result<Arc<Mutex<Sale>>, GateError> {
        self.sales.read().unwrap_or_else(PoisonError::into_inner).get(&product).cloned().ok_or(GateError::Lost)
    }

    pub(super) fn reserve(&self, product: ProductId, purchases: &[Purchase]) -> Result<Admission, GateError> {
        let sale = self.sale(product)?;
        let mut sale = lock(&sale);
        let (terms, now) = (sale.terms, Timestamp::now());
        if now < terms.starts_at {
            return Ok(Admission::NotStarted(terms.starts_at));
        }
        if terms.ends_at.is_some_and(|end| now >= end) {
            return Ok(Admission::Ended);
        }
        if terms.paused {
            return Ok(Admission::Paused);
        }
        let now = Instant::now();
        let answers = purchases.iter().map(|purchase| sale.admit(product, *purchase, now, &self.tries)).collect();
        Ok(Admission::Open { epoch: sale.epoch, answers })
    }

    /// What every purchase of a closed sale, and every stranger's of a sold-out one, is told. `None`: ask for a unit.
    pub(super) fn refusal(&self, product: ProductId, user: UserId) -> Option<Refusal> {
        let sale = self.sale(product).ok()?;
        let sale = lock(&sale);
        match sale.terms.state(sale.remaining(), Timestamp::now()) {
            SaleState::Live => None,
            SaleState::Upcoming => Some(Refusal::NotStarted(sale.terms.starts_at)),
            SaleState::Ended => Some(Refusal::Ended),
            SaleState::Paused => Some(Refusal::Paused),
            SaleState::SoldOut if sale.buyers.contains_key(&user) => None,
            SaleState::SoldOut => Some(match self.tries.note(product, user, Instant::now()) {
                Err(wait) => Refusal::RateLimited(wait),
                Ok(()) => Refusal::SoldOut,
            }),
        }
    }

    pub(super) fn settle(&self, product: ProductId, purchases: &[Purchase]) -> Result<(), GateError> {
        let sale = self.sale(product)?;
        let mut sale = lock(&sale);
        for purchase in purchases {
            sale.land(purchase);
        }
        sale.forget_settled();
        Ok(())
    }

    pub(super) fn release(&self, product: ProductId, epoch: i64, purchases: &[Purchase]) -> Result<(), GateError> {
        let sale = self.sale(product)?;
        let mut sale = lock(&sale);
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
    }

    pub(super) fn configure(&self, product: ProductId, terms: &SaleTerms) -> Result<(), GateError> {
        let sale = self.sale(product)?;
        let mut sale = lock(&sale);
        if terms.ver > sale.terms.ver {
            sale.terms = *terms;
        }
        Ok(())
    }

    /// Opens a gate with what the database holds, unless one is open already.
    pub(super) fn open(
        &self,
        product: ProductId,
        epoch: i64,
        terms: &SaleTerms,
        buyers: impl IntoIterator<Item = Purchase>,
    ) -> Result<(), GateError> {
        let buyers = buyers
            .into_iter()
            .map(|held| (held.user_id, Mark { order_id: held.order_id, in_flight_since: None }))
            .collect();
        let mut sales = self.sales.write().unwrap_or_else(PoisonError::into_inner);
        if sales.contains_key(&product) {
            return Err(GateError::Superseded);
        }
        let sale = Sale { epoch, terms: *terms, buyers, flight: VecDeque::new(), in_flight: 0 };
        sales.insert(product, Arc::new(Mutex::new(sale)));
        Ok(())
    }

    pub(super) fn view(&self, products: &[ProductId]) -> Vec<Option<GateView>> {
        let now = Timestamp::now();
        let view = |product: &ProductId| {
            let sale = self.sale(*product).ok()?;
            let sale = lock(&sale);
            let remaining = sale.remaining();
            Some(GateView {
                remaining,
                state: sale.terms.state(remaining, now),
                ver: sale.terms.ver,
                taken: sale.buyers.len() as i64,
                in_flight: sale.in_flight,
            })
        };
        products.iter().map(view).collect()
    }

    pub(super) fn stale(&self, product: ProductId, age: Duration, most: usize) -> Result<Stale, GateError> {
        let sale = self.sale(product)?;
        let sale = lock(&sale);
        let now = Instant::now();
        let old = sale.flight.iter().take_while(|(at, _)| now.duration_since(*at) >= age);
        let purchases = old.filter(|entry| sale.is_in_flight(entry)).map(|(_, purchase)| *purchase);
        Ok(Stale { epoch: sale.epoch, purchases: purchases.take(most).collect() })
    }

    pub(super) fn held_by(&self, user: UserId, products: &[ProductId]) -> Vec<Option<HeldUnit>> {
        let held = |product: &ProductId| {
            let sale = self.sale(*product).ok()?;
            let mark = lock(&sale).buyers.get(&user).copied();
            Some(mark.map_or(HeldUnit::Nothing, |mark| HeldUnit::Order(mark.order_id)))
        };
        products.iter().map(held).collect()
    }

    pub(super) fn buyer_in_flight(&self, product: ProductId, order: OrderId) -> Option<UserId> {
        let sale = self.sale(product).ok()?;
        let sale = lock(&sale);
        sale.buyers
            .iter()
            .find(|(_, mark)| mark.in_flight_since.is_some() && mark.order_id == order)
            .map(|(user, _)| *user)
    }
}

fn lock(sale: &Mutex<Sale>) -> MutexGuard<'_, Sale> {
    sale.lock().unwrap_or_else(PoisonError::into_inner)
}
