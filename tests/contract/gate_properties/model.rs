//! What a gate has to do, in the plainest words: a map from users to their units, and the sale's settings.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use proptest::prelude::{TestCaseError, prop_assert, prop_assert_eq};
use seckill::model::{
    Click, Denial, LatePayment, Life, Network, OrderId, PaymentId, Purchase, Quantity, Revision, SaleSettings,
    SaleState, Terms, Timestamp, UserId,
};
use seckill::stock::{Answer, GateView, Holding, PaymentAdmission, RATE_WINDOW, Stale};

use crate::gate::EPOCH;

/// The gate's clock counts whole milliseconds, and a key of Redis lives up to one longer.
const CLOCK_SLACK: Duration = Duration::from_millis(20);

/// When something happened: not before `from`, not after `to`.
#[derive(Clone, Copy)]
pub struct Span {
    pub from: Instant,
    pub to: Instant,
}

struct Unit {
    order_id: OrderId,
    quantity: Quantity,
    in_flight: bool,
    revision: Revision,
    taken: Span,
    revived_by: Option<PaymentId>,
}

impl Unit {
    fn purchase(&self, user_id: UserId) -> Purchase {
        Purchase { order_id: self.order_id, user_id, quantity: self.quantity }
    }

    fn life(&self, user_id: UserId) -> Life {
        Life { purchase: self.purchase(user_id), revived_by: self.revived_by }
    }
}

pub struct Model {
    pub settings: SaleSettings,
    held: BTreeMap<UserId, Unit>,
    /// Late payments in flight, the oldest first.
    late: Vec<LatePayment>,
    /// The last try of each user that has no unit, and was not refused for coming too soon.
    tries: BTreeMap<UserId, Span>,
    /// Units that each address was given while there was a limit of an address.
    taken_from: HashMap<Network, i64>,
}

impl Model {
    pub fn new(settings: SaleSettings) -> Self {
        let (held, tries) = (BTreeMap::new(), BTreeMap::new());
        Self { settings, held, late: Vec::new(), tries, taken_from: HashMap::new() }
    }

    /// Does what the gate did with a purchase in a call that took `call`, if it may have answered so.
    pub fn admit(&mut self, click: Click, call: Span, answer: Answer) -> Result<(), TestCaseError> {
        let Click { purchase, from } = click;
        let Purchase { order_id, user_id, quantity } = purchase;
        if let Some(unit) = self.held.get(&user_id) {
            if unit.revived_by.is_some() {
                prop_assert_eq!(answer, Answer::Revived(unit.order_id));
                return Ok(());
            }
            let held = match unit.in_flight {
                true => {
                    let Unit { order_id, quantity, revision, .. } = *unit;
                    Answer::InFlight { order_id, quantity, revision }
                }
                false => Answer::Denied(Denial::AlreadyPurchased(unit.order_id)),
            };
            let same = unit.order_id == order_id && (!unit.in_flight || unit.revision == self.settings.revision());
            prop_assert_eq!(answer, if same { Answer::Reserved } else { held });
            return Ok(());
        }
        let Terms { max_per_order: most, max_per_address, .. } = self.settings.terms.unwrap();
        if quantity > most {
            prop_assert_eq!(answer, Answer::Denied(Denial::TooMany(most)));
            return Ok(());
        }
        // How long ago the last try was is known only as well as the two calls can be timed.
        let since = self.tries.get(&user_id).map(|last| {
            (call.from.saturating_duration_since(last.to), call.to.saturating_duration_since(last.from) + CLOCK_SLACK)
        });
        if let Answer::Denied(Denial::RateLimited(wait)) = answer {
            let Some((least, most)) = since else { return Err(TestCaseError::fail("limited at the first try")) };
            prop_assert!(wait > Duration::ZERO && wait + least <= RATE_WINDOW + CLOCK_SLACK, "{wait:?} is too long");
            prop_assert!(wait + most >= RATE_WINDOW, "{wait:?} is too short");
            return Ok(());
        }
        prop_assert!(since.is_none_or(|(_, most)| most >= RATE_WINDOW), "{answer:?} {since:?} after the last try");
        let remaining = self.remaining();
        if remaining < quantity.get() {
            let too_few = if remaining == 0 { Denial::SoldOut } else { Denial::NotEnoughLeft(remaining) };
            prop_assert_eq!(answer, Answer::Denied(too_few));
            self.tries.insert(user_id, call);
            return Ok(());
        }
        let limited = max_per_address.zip(from);
        let share =
            limited.map(|(limit, from)| (limit.get() - self.taken_from.get(&from).copied().unwrap_or_default()).max(0));
        if let Some(share) = share.filter(|share| *share < quantity.get()) {
            prop_assert_eq!(answer, Answer::Denied(Denial::AddressLimit(share)));
            self.tries.insert(user_id, call);
        } else {
            prop_assert_eq!(answer, Answer::Reserved);
            if let Some((_, from)) = limited {
                *self.taken_from.entry(from).or_default() += quantity.get();
            }
            let (revision, taken) = (self.settings.revision(), call);
            let unit = Unit { order_id, quantity, in_flight: true, revision, taken, revived_by: None };
            self.held.insert(user_id, unit);
        }
        Ok(())
    }

    pub fn admit_payment(&mut self, late: LatePayment) -> PaymentAdmission {
        let (epoch, Purchase { order_id, user_id, quantity }) = (EPOCH, late.purchase);
        let remaining = self.remaining();
        match self.held.get_mut(&user_id) {
            None if remaining < quantity.get() => return PaymentAdmission::Refused,
            None => {
                let (revision, now) = (self.settings.revision(), Instant::now());
                let taken = Span { from: now, to: now };
                let revived_by = Some(late.payment);
                self.held.insert(user_id, Unit { order_id, quantity, in_flight: false, revision, taken, revived_by });
            }
            Some(unit) if unit.order_id != order_id => return PaymentAdmission::Refused,
            Some(unit) => match unit.revived_by {
                None => {
                    unit.revived_by = Some(late.payment);
                    unit.in_flight = false;
                }
                Some(payment) if payment == late.payment => {
                    return PaymentAdmission::Admitted { epoch, is_new: false };
                }
                Some(_) => return PaymentAdmission::Busy,
            },
        }
        self.late.push(late);
        PaymentAdmission::Admitted { epoch, is_new: true }
    }

    pub fn mark_revived(&mut self, ended: LatePayment) {
        self.late.retain(|late| *late != ended);
    }

    pub fn mark_written(&mut self, purchases: &[Purchase]) {
        for purchase in purchases {
            if let Some(unit) = self.held.get_mut(&purchase.user_id)
                && unit.order_id == purchase.order_id
            {
                unit.in_flight = false;
            }
        }
    }

    pub fn release(&mut self, ended: &[Life]) {
        for Life { purchase, revived_by } in ended {
            let is_it = |unit: &Unit| (unit.order_id, unit.revived_by) == (purchase.order_id, *revived_by);
            if self.held.get(&purchase.user_id).is_some_and(is_it) {
                self.held.remove(&purchase.user_id);
                self.count_try_of(*purchase);
            }
        }
    }

    /// A try that got a unit counts from when its order was drawn, once the unit is given back.
    fn count_try_of(&mut self, purchase: Purchase) {
        let ago = Timestamp::now().unix_ms() - purchase.order_id.drawn_at().unix_ms();
        let ago = Duration::from_millis(ago.try_into().unwrap());
        if ago < RATE_WINDOW {
            let drawn = Instant::now().checked_sub(ago).unwrap();
            self.tries.insert(purchase.user_id, Span { from: drawn, to: drawn });
        }
    }

    pub fn configure(&mut self, settings: SaleSettings) {
        if settings.revision > self.settings.revision {
            self.settings = settings;
        }
    }

    /// What is left of a gate in a process that starts again from the database: the live orders, which are there.
    pub fn reload(&mut self) -> Vec<Life> {
        self.tries.clear();
        self.taken_from.clear();
        self.late.clear();
        self.held.values_mut().for_each(|unit| unit.in_flight = false);
        self.held.iter().map(|(user, unit)| unit.life(*user)).collect()
    }

    pub fn order_of(&self, user: UserId) -> Option<(OrderId, Quantity)> {
        self.held.get(&user).map(|unit| (unit.order_id, unit.quantity))
    }

    fn taken(&self) -> i64 {
        self.held.values().map(|unit| unit.quantity.get()).sum()
    }

    fn remaining(&self) -> i64 {
        (self.settings.stock - self.taken()).max(0)
    }

    pub fn view(&self) -> GateView {
        let remaining = self.remaining();
        let state = match (self.settings.paused, remaining) {
            (true, _) => SaleState::Paused,
            (false, 0) => SaleState::SoldOut,
            (false, _) => SaleState::Live,
        };
        let in_flight = (self.held.values().filter(|unit| unit.in_flight).count() + self.late.len()) as i64;
        let SaleSettings { revision, stock, terms, .. } = self.settings;
        GateView { remaining, state, epoch: EPOCH, revision, stock, taken: self.taken(), in_flight, terms }
    }

    pub fn held_by(&self, user: UserId) -> Holding {
        self.order_of(user).map_or(Holding::Nothing, |(id, quantity)| Holding::Order { id, quantity })
    }

    /// The revision of the click of what a user has in flight.
    pub fn in_flight(&self, user: UserId) -> Option<Revision> {
        self.held.get(&user).filter(|unit| unit.in_flight).map(|unit| unit.revision)
    }

    /// Checks a list of everything that is in flight: each once, the oldest first.
    pub fn check_stale(&self, stale: &Stale) -> Result<(), TestCaseError> {
        prop_assert_eq!(stale.epoch, EPOCH);
        prop_assert_eq!(stale.purchases.len(), stale.revisions.len());
        let mut listed: Vec<_> = stale.purchases.iter().copied().zip(stale.revisions.iter().copied()).collect();
        listed.sort_by_key(|(purchase, _)| purchase.user_id);
        let in_flight = self.held.iter().filter(|(_, unit)| unit.in_flight);
        let expected: Vec<_> = in_flight.map(|(user, unit)| (unit.purchase(*user), unit.revision)).collect();
        prop_assert_eq!(listed, expected);
        let taken: Vec<_> = stale.purchases.iter().map(|purchase| self.held[&purchase.user_id].taken).collect();
        let sorted = |late: &[LatePayment]| {
            let mut calls: Vec<String> = late.iter().map(|late| format!("{late:?}")).collect();
            calls.sort();
            calls
        };
        prop_assert_eq!(sorted(&stale.late_payments), sorted(&self.late));
        prop_assert!(taken.is_sorted_by(|older, newer| older.from <= newer.to + CLOCK_SLACK), "not the oldest first");
        Ok(())
    }
}
