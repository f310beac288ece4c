//! One sale of the gate in this process: who holds units, and what of that is in flight. Its owner locks it.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::model::{
    Click, Denial, LatePayment, Life, Network, OrderId, PaymentId, ProductId, Purchase, Quantity, Revision,
    SaleSettings, UserId,
};
use crate::stock::rate_limiter::RateLimiter;
use crate::stock::types::{Answer, Holding, PaymentAdmission, Release, Stale};

pub(super) struct SaleInMemory {
    pub(super) epoch: i64,
    pub(super) settings: SaleSettings,
    /// Who holds units. Units that remain = stock - number of buyers - `extra`.
    buyers: HashMap<UserId, Reservation, RandomState>,
    /// What was admitted, the oldest first; forgotten from the front once it is known to be written.
    flight: VecDeque<FlightEntry>,
    /// Quantities of those who hold more than one unit: most hold one, and pay no room for it.
    quantities: HashMap<UserId, Quantity, RandomState>,
    /// Their units beyond the first.
    extra: i64,
    /// Units that buyers of each address have taken while there was a limit of an address. They are not given back: an address has one
    /// share of a sale.
    taken_from: HashMap<Network, i64, RandomState>,
    /// The late payments that revived the orders of those who hold units: hardly anybody has one.
    revived: HashMap<UserId, PaymentId, RandomState>,
    /// Purchases.
    in_flight: i64,
    /// Late payments in flight, the oldest first. There are a few at most.
    late_payments: Vec<(Instant, LatePayment)>,
    last_number: Option<NonZeroU32>,
}

/// There is one for each buyer, so it is kept small.
#[derive(Clone, Copy)]
struct Reservation {
    order_id: OrderId,
    /// Its number in flight, until its order is known to be in the database.
    flight_number: Option<NonZeroU32>,
    /// Of the click; of no use once the order is written, which names it.
    revision: Revision,
}

impl Reservation {
    fn revision_in_flight(&self) -> Option<Revision> {
        self.flight_number.map(|_| self.revision)
    }
}

/// A purchase that was admitted. One that was released and admitted again has another number.
struct FlightEntry {
    number: NonZeroU32,
    admitted_at: Instant,
    purchase: Purchase,
}

/// The buyers with whom a gate is filled: whom the live orders give units, read some at a time. They are kept as the gate keeps
/// them, and only once.
pub struct LoadedBuyers {
    buyers: HashMap<UserId, Reservation, RandomState>,
    quantities: HashMap<UserId, Quantity, RandomState>,
    revived: HashMap<UserId, PaymentId, RandomState>,
    revision: Revision,
}

impl LoadedBuyers {
    /// Of a sale with about that many.
    pub fn expecting(units: i64, settings: &SaleSettings) -> Self {
        let room = usize::try_from(units).unwrap_or_default();
        let buyers = HashMap::with_capacity_and_hasher(room, RandomState::default());
        let (quantities, revived) = (HashMap::default(), HashMap::default());
        Self { buyers, quantities, revived, revision: settings.revision() }
    }

    /// Adds some.
    pub fn extend(&mut self, lives: impl IntoIterator<Item = Life>) {
        for Life { purchase: Purchase { order_id, user_id, quantity }, revived_by } in lives {
            self.buyers.insert(user_id, Reservation { order_id, flight_number: None, revision: self.revision });
            if quantity != Quantity::ONE {
                self.quantities.insert(user_id, quantity);
            }
            if let Some(payment) = revived_by {
                self.revived.insert(user_id, payment);
            }
        }
    }
}

impl SaleInMemory {
    pub(super) fn new(epoch: i64, settings: SaleSettings, held: LoadedBuyers) -> Self {
        let LoadedBuyers { buyers, quantities, revived, .. } = held;
        let extra = quantities.values().map(|quantity| quantity.extra()).sum();
        let (flight, late_payments) = (VecDeque::new(), Vec::new());
        Self {
            epoch,
            settings,
            buyers,
            flight,
            quantities,
            extra,
            taken_from: HashMap::default(),
            revived,
            in_flight: 0,
            late_payments,
            last_number: None,
        }
    }

    pub(super) fn taken(&self) -> i64 {
        self.buyers.len() as i64 + self.extra
    }

    pub(super) fn remaining(&self) -> i64 {
        (self.settings.stock - self.taken()).max(0)
    }

    pub(super) fn in_flight(&self) -> i64 {
        self.in_flight + self.late_payments.len() as i64
    }

    pub(super) fn has_buyer(&self, user: UserId) -> bool {
        self.buyers.contains_key(&user)
    }

    pub(super) fn held_by(&self, user: UserId) -> Holding {
        let quantity = || self.quantity_of(user);
        let held = self.buyers.get(&user).map(|held| Holding::Order { id: held.order_id, quantity: quantity() });
        held.unwrap_or(Holding::Nothing)
    }

    fn quantity_of(&self, user: UserId) -> Quantity {
        self.quantities.get(&user).copied().unwrap_or_default()
    }

    pub(super) fn revision_in_flight(&self, Purchase { order_id, user_id, .. }: Purchase) -> Option<Revision> {
        self.buyers.get(&user_id).filter(|held| held.order_id == order_id)?.revision_in_flight()
    }

    pub(super) fn find_in_flight(&self, order: OrderId) -> Option<Purchase> {
        let mut in_flight = self.flight.iter().filter(|entry| self.reservation_of(entry).is_some());
        in_flight.find(|entry| entry.purchase.order_id == order).map(|entry| entry.purchase)
    }

    pub(super) fn stale(&self, age: Duration, most: usize) -> Stale {
        let now = Instant::now();
        let is_old = |admitted_at: Instant| now.saturating_duration_since(admitted_at) >= age;
        let old = self.flight.iter().take_while(|entry| is_old(entry.admitted_at));
        let in_flight = |entry: &FlightEntry| Some((entry.purchase, self.reservation_of(entry)?.revision));
        let (purchases, revisions): (Vec<_>, Vec<_>) = old.filter_map(in_flight).take(most).unzip();
        let late = self.late_payments.iter().take_while(|(admitted_at, _)| is_old(*admitted_at)).map(|(_, late)| *late);
        let late = late.take(most - purchases.len()).collect();
        Stale { epoch: self.epoch, purchases, revisions, late_payments: late }
    }

    pub(super) fn admit(
        &mut self,
        product: ProductId,
        Click { purchase, from }: Click,
        (now, revision): (Instant, Revision),
        rate_limiter: &RateLimiter,
    ) -> Answer {
        let Purchase { order_id, user_id, quantity } = purchase;
        if let Some(held) = self.buyers.get(&user_id) {
            if self.revived.contains_key(&user_id) {
                return Answer::Revived(held.order_id);
            }
            let same_order = held.order_id == order_id;
            let order_id = held.order_id;
            return match held.revision_in_flight() {
                Some(of_click) if !same_order || of_click != revision => {
                    Answer::InFlight { order_id, quantity: self.quantity_of(user_id), revision: of_click }
                }
                None if !same_order => Answer::Denied(Denial::AlreadyPurchased(order_id)),
                _ => Answer::Reserved,
            };
        }
        let most = self.settings.terms.map_or(Quantity::ONE, |terms| terms.max_per_order);
        if quantity > most {
            return Answer::Denied(Denial::TooMany(most));
        }
        let limit = self.settings.terms.and_then(|terms| terms.max_per_address);
        let share = limit.zip(from).map(|(limit, from)| (limit.get(), from));
        let why_not = match self.remaining() {
            0 => Some(Denial::SoldOut),
            remaining if remaining < quantity.get() => Some(Denial::NotEnoughLeft(remaining)),
            _ => share
                .map(|(limit, from)| (limit - self.taken_from(from)).max(0))
                .filter(|left| *left < quantity.get())
                .map(Denial::AddressLimit),
        };
        if let Some(denial) = why_not {
            let denial = rate_limiter.note(product, user_id, now).map_or_else(Denial::RateLimited, |()| denial);
            return Answer::Denied(denial);
        }
        // From here on the reservation limits the rate.
        if let Some(wait) = rate_limiter.wait(product, user_id, now) {
            return Answer::Denied(Denial::RateLimited(wait));
        }
        if let Some((_, from)) = share {
            *self.taken_from.entry(from).or_default() += quantity.get();
        }
        self.take(purchase, (now, revision));
        Answer::Reserved
    }

    fn taken_from(&self, from: Network) -> i64 {
        self.taken_from.get(&from).copied().unwrap_or_default()
    }

    /// Gives units to a purchase that was promised, if they are there.
    pub(super) fn readmit(&mut self, purchase: Purchase, at: (Instant, Revision)) -> Answer {
        match self.buyers.get(&purchase.user_id) {
            Some(held) if self.revived.contains_key(&purchase.user_id) => return Answer::Revived(held.order_id),
            Some(held) if held.order_id == purchase.order_id => {}
            Some(held) => return Answer::Denied(Denial::AlreadyPurchased(held.order_id)),
            None if self.remaining() < purchase.quantity.get() => return Answer::Denied(Denial::SoldOut),
            None => self.take(purchase, at),
        }
        Answer::Reserved
    }

    fn take(&mut self, purchase: Purchase, (now, revision): (Instant, Revision)) {
        let Purchase { order_id, user_id, quantity } = purchase;
        // After four billion the numbers begin again. The purchase that had this one before is not in flight any more.
        let number = self.last_number.and_then(|last| last.checked_add(1)).unwrap_or(NonZeroU32::MIN);
        self.last_number = Some(number);
        self.buyers.insert(user_id, Reservation { order_id, flight_number: Some(number), revision });
        if quantity != Quantity::ONE {
            self.quantities.insert(user_id, quantity);
            self.extra += quantity.extra();
        }
        self.flight.push_back(FlightEntry { number, admitted_at: now, purchase });
        self.in_flight += 1;
    }

    /// Marks reservations as written: these orders are in the database, so they are in flight no longer.
    pub(super) fn mark_written(&mut self, purchases: &[Purchase]) {
        purchases.iter().for_each(|purchase| self.end_flight(purchase));
        self.forget_written();
    }

    /// Takes the units of a dead order for a late payment, unless others have them.
    pub(super) fn admit_payment(&mut self, late: &LatePayment, now: Instant) -> PaymentAdmission {
        let (epoch, Purchase { order_id, user_id, quantity }) = (self.epoch, late.purchase);
        let held = self.buyers.get(&user_id).map(|held| (held.order_id, self.revived.get(&user_id).copied()));
        match held {
            None if self.remaining() < quantity.get() => return PaymentAdmission::Refused,
            None => {
                // The order is written, and so is its revision.
                let (flight_number, revision) = (None, self.settings.revision());
                self.buyers.insert(user_id, Reservation { order_id, flight_number, revision });
                if quantity != Quantity::ONE {
                    self.quantities.insert(user_id, quantity);
                    self.extra += quantity.extra();
                }
            }
            Some((other, _)) if other != order_id => return PaymentAdmission::Refused,
            Some((_, Some(payment))) if payment == late.payment => {
                return PaymentAdmission::Admitted { epoch, is_new: false };
            }
            Some((_, Some(_))) => return PaymentAdmission::Busy,
            // Its first life is dead, and not released yet.
            Some((_, None)) => {
                self.end_flight(&late.purchase);
                self.forget_written();
            }
        }
        self.revived.insert(user_id, late.payment);
        self.late_payments.push((now, *late));
        PaymentAdmission::Admitted { epoch, is_new: true }
    }

    /// A call of a late payment is in flight no longer.
    pub(super) fn end_late_flight(&mut self, ended: &LatePayment) {
        self.late_payments.retain(|(_, late)| late != ended);
    }

    /// Gives back the units of a life, if it is still the one that holds them. False: it is not.
    pub(super) fn release(&mut self, Release { life, call }: &Release) -> bool {
        let Life { purchase, revived_by } = *life;
        if let (Some(payment), Some(call)) = (revived_by, *call) {
            self.end_late_flight(&LatePayment { purchase, payment, call });
        }
        let user = purchase.user_id;
        let is_its_order = self.buyers.get(&user).is_some_and(|held| held.order_id == purchase.order_id);
        if !is_its_order || self.revived.get(&user).copied() != revived_by {
            return false;
        }
        self.end_flight(&purchase);
        self.buyers.remove(&user);
        self.revived.remove(&user);
        // What the reservation had, whatever the caller thinks.
        self.extra -= self.quantities.remove(&user).map_or(0, Quantity::extra);
        true
    }

    pub(super) fn forget_written(&mut self) {
        while self.flight.front().is_some_and(|entry| self.reservation_of(entry).is_none()) {
            self.flight.pop_front();
        }
    }

    fn end_flight(&mut self, purchase: &Purchase) {
        if let Some(held) = self.buyers.get_mut(&purchase.user_id)
            && held.order_id == purchase.order_id
            && held.flight_number.take().is_some()
        {
            self.in_flight -= 1;
        }
    }

    /// The reservation of a purchase that is still in flight.
    fn reservation_of(&self, FlightEntry { number, purchase, .. }: &FlightEntry) -> Option<&Reservation> {
        let held = self.buyers.get(&purchase.user_id);
        held.filter(|held| held.flight_number == Some(*number) && held.order_id == purchase.order_id)
    }
}
