//! The gate in this process.
//!
//! It is lost when the process ends: at a start it is filled from the database before anybody can ask it. One lock a product, held
//! for the purchases of one call or for one denial at a time, some hundred nanoseconds each.

mod sale;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};

pub use self::sale::LoadedBuyers;
use self::sale::SaleInMemory;
use super::rate_limiter::{RateLimiter, rate_wait};
use super::types::{Admission, Answer, GateError, GateView, Holding, PaymentAdmission, Release, Stale};
use crate::model::{
    Click, Denial, LatePayment, OrderId, ProductId, Purchase, Revision, SaleSettings, Timestamp, UserId,
};

/// Purchases that are marked as written under one hold of a sale's lock.
const MARKED_AT_A_TIME: usize = 256;

/// See the module.
#[derive(Default)]
pub struct MemoryGate {
    sales: RwLock<HashMap<ProductId, Mutex<SaleInMemory>, RandomState>>,
    rate_limiter: RateLimiter,
}

impl MemoryGate {
    /// Runs `work` on a sale that nobody else looks at meanwhile.
    fn with_sale<T>(&self, product: ProductId, work: impl FnOnce(&mut SaleInMemory) -> T) -> Result<T, GateError> {
        let sales = self.sales.read();
        let sale = sales.get(&product).ok_or(GateError::Lost)?;
        Ok(work(&mut sale.lock()))
    }

    pub(super) fn reserve(&self, product: ProductId, clicks: &[Click]) -> Result<Admission, GateError> {
        self.with_sale(product, |sale| {
            let settings = sale.settings;
            // Whether a unit remains is for each purchase to say: its buyer may hold one.
            if let Some(denial) = settings.denial(1, Timestamp::now()) {
                return Admission::Denied(denial);
            }
            let (now, revision) = (Instant::now(), settings.revision());
            let admit = |click: &Click| sale.admit(product, *click, (now, revision), &self.rate_limiter);
            let answers = clicks.iter().map(admit).collect();
            Admission::Open { epoch: sale.epoch, revision, terms: settings.terms, answers }
        })
    }

    pub(super) fn readmit(
        &self,
        product: ProductId,
        revision: Option<Revision>,
        purchases: &[Purchase],
    ) -> Result<(i64, Vec<Answer>), GateError> {
        self.with_sale(product, |sale| {
            let (now, revision) = (Instant::now(), revision.unwrap_or_else(|| sale.settings.revision()));
            let answers = purchases.iter().map(|purchase| sale.readmit(*purchase, (now, revision))).collect();
            (sale.epoch, answers)
        })
    }

    /// What denies every purchase of a sale that is not open now (not begun, ended, paused), and of a sold-out one every purchase
    /// of a user who holds no unit. `None`: ask for a unit.
    pub(super) fn denial(&self, product: ProductId, user: UserId) -> Option<Denial> {
        let now = Timestamp::now();
        let denial = self.with_sale(product, |sale| match sale.settings.denial(sale.remaining(), now) {
            Some(Denial::SoldOut) if sale.has_buyer(user) => None,
            denial => denial,
        });
        let denial = denial.ok().flatten()?;
        if denial == Denial::SoldOut
            && let Err(wait) = self.rate_limiter.note(product, user, Instant::now())
        {
            return Some(Denial::RateLimited(wait));
        }
        Some(denial)
    }

    pub(super) fn mark_written(&self, product: ProductId, purchases: &[Purchase]) -> Result<(), GateError> {
        // A few at a time: buyers wait for the lock meanwhile.
        for purchases in purchases.chunks(MARKED_AT_A_TIME) {
            self.with_sale(product, |sale| sale.mark_written(purchases))?;
        }
        Ok(())
    }

    pub(super) fn admit_payment(&self, product: ProductId, late: &LatePayment) -> Result<PaymentAdmission, GateError> {
        self.with_sale(product, |sale| sale.admit_payment(late, Instant::now()))
    }

    pub(super) fn mark_revived(&self, product: ProductId, epoch: i64, late: &LatePayment) -> Result<(), GateError> {
        self.with_sale(product, |sale| {
            if sale.epoch != epoch {
                return Err(GateError::AnotherGate);
            }
            sale.end_late_flight(late);
            Ok(())
        })?
    }

    pub(super) fn release(&self, product: ProductId, epoch: i64, ended: &[Release]) -> Result<(), GateError> {
        self.with_sale(product, |sale| {
            if sale.epoch != epoch {
                return Err(GateError::AnotherGate);
            }
            for release in ended {
                if sale.release(release) {
                    let purchase = &release.life.purchase;
                    let wait = rate_wait(purchase, Timestamp::now());
                    self.rate_limiter.let_wait(product, purchase.user_id, Instant::now(), wait);
                }
            }
            sale.forget_written();
            Ok(())
        })?
    }

    pub(super) fn configure(&self, product: ProductId, settings: &SaleSettings) -> Result<(), GateError> {
        self.with_sale(product, |sale| {
            if settings.revision > sale.settings.revision {
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
        held: LoadedBuyers,
    ) -> Result<(), GateError> {
        let mut sales = self.sales.write();
        if sales.contains_key(&product) {
            return Err(GateError::AnotherGate);
        }
        sales.insert(product, Mutex::new(SaleInMemory::new(epoch, *settings, held)));
        Ok(())
    }

    /// Takes away a gate of that epoch whose sale ended longer than `age` ago and has nothing in flight. False: it stays.
    pub(super) fn retire(&self, product: ProductId, epoch: i64, age: Duration) -> Result<bool, GateError> {
        let ended_before = Timestamp::now().before(age);
        let mut sales = self.sales.write();
        let sale = sales.get_mut(&product).ok_or(GateError::Lost)?.get_mut();
        let is_over = sale.settings.ends_at.is_some_and(|end| end <= ended_before);
        if !is_over || sale.in_flight() > 0 || sale.epoch != epoch {
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
        let view = |sale: &mut SaleInMemory| {
            let remaining = sale.remaining();
            GateView {
                remaining,
                state: sale.settings.state(remaining, now),
                revision: sale.settings.revision,
                stock: sale.settings.stock,
                taken: sale.taken(),
                in_flight: sale.in_flight(),
                epoch: sale.epoch,
                terms: sale.settings.terms,
            }
        };
        products.iter().map(|product| self.with_sale(*product, view).ok()).collect()
    }

    /// One look at a number of each sale, some 20 ns.
    pub(super) fn products_in_flight(&self) -> Vec<ProductId> {
        let sales = self.sales.read();
        let in_flight = sales.iter().filter(|(_, sale)| sale.lock().in_flight() > 0);
        in_flight.map(|(product, _)| *product).collect()
    }

    pub(super) fn stale(&self, product: ProductId, age: Duration, most: usize) -> Result<Stale, GateError> {
        self.with_sale(product, |sale| sale.stale(age, most))
    }

    pub(super) fn held_by(&self, users: &[UserId], products: &[ProductId]) -> Vec<Option<Vec<Holding>>> {
        let held = |sale: &mut SaleInMemory| users.iter().map(|user| sale.held_by(*user)).collect();
        products.iter().map(|product| self.with_sale(*product, held).ok()).collect()
    }

    pub(super) fn revision_in_flight(
        &self,
        product: ProductId,
        purchase: Purchase,
    ) -> Result<Option<Revision>, GateError> {
        self.with_sale(product, |sale| sale.revision_in_flight(purchase))
    }

    pub(super) fn find_in_flight(&self, product: ProductId, order: OrderId) -> Option<Purchase> {
        self.with_sale(product, |sale| sale.find_in_flight(order)).ok().flatten()
    }
}
