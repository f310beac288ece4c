//! The snapshots of the sales that deny, and who asked for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::super::clock::Asked;
use super::super::replies::{GateVersion, OpenGate};
use super::admitted::{AdmittedHere, FORGET_AFTER, MAX_BUYERS, MAX_SALES, Users};
use super::snapshot::Snapshot;
use crate::model::{Denial, ProductId, UserId};
use crate::stock::rate_limiter::RateLimiter;

/// Sales that deny.
#[derive(Default)]
pub(in crate::stock::redis) struct SoldOutCache {
    sales: RwLock<HashMap<ProductId, Arc<WatchedSale>, RandomState>>,
    admitted: AdmittedHere,
    rate_limiter: RateLimiter,
    /// Number of buyers in the snapshots of all sales together.
    buyers: AtomicUsize,
    pub(super) new_sale: Notify,
}

/// A sale that is watched.
struct WatchedSale {
    state: RwLock<State>,
    last_asked: Mutex<Instant>,
}

#[derive(Default)]
struct State {
    snapshot: Option<Snapshot>,
    /// Counts what this instance has changed: a copy that was begun before does not count any more.
    changes: u64,
}

/// A sale that is watched, and how many changes of it there had been.
pub(super) struct Watched {
    pub(super) product: ProductId,
    sale: Arc<WatchedSale>,
    changes: u64,
}

impl WatchedSale {
    fn unknown() -> Arc<Self> {
        Arc::new(Self { state: RwLock::default(), last_asked: Mutex::new(Instant::now()) })
    }
}

impl SoldOutCache {
    /// Why a user gets nothing, without asking Redis; `None`: ask.
    pub(in crate::stock::redis) fn denial(&self, product: ProductId, user: UserId) -> Option<Denial> {
        let sale = self.sale(product)?;
        let now = Instant::now();
        *sale.last_asked.lock() = now;
        let state = sale.state.read();
        let snapshot = state.snapshot.as_ref().filter(|snapshot| snapshot.is_fresh(now))?;
        match snapshot.denial(now)? {
            Denial::SoldOut if snapshot.may_hold(user) => None,
            Denial::SoldOut => Some(match self.rate_limiter.note(product, user, now) {
                Err(wait) => Denial::RateLimited(wait),
                Ok(()) => Denial::SoldOut,
            }),
            denial => Some(denial),
        }
    }

    /// Redis has denied these users: from now on the sale is watched, and their tries count here.
    pub(in crate::stock::redis) fn watch_sale(&self, product: ProductId, denied: impl Iterator<Item = UserId>) {
        let now = Instant::now();
        for user in denied {
            // One that was too early does not extend the wait.
            let _ = self.rate_limiter.note(product, user, now);
        }
        if self.sale(product).is_some() {
            return;
        }
        let mut sales = self.sales.write();
        if sales.len() < MAX_SALES {
            sales.entry(product).or_insert_with(WatchedSale::unknown);
            self.new_sale.notify_one();
        }
    }

    /// Redis has given these users units at that version of the gate.
    pub(in crate::stock::redis) fn admitted(
        &self,
        product: ProductId,
        version: GateVersion,
        users: impl Iterator<Item = UserId>,
    ) {
        self.admitted.note(product, version, users);
    }

    /// A sale was changed here: nothing that was known of it counts any more.
    pub(in crate::stock::redis) fn forget(&self, product: ProductId) {
        if let Some(sale) = self.sale(product) {
            self.update(&sale, |state| {
                state.changes += 1;
                state.snapshot = None;
            });
        }
    }

    fn sale(&self, product: ProductId) -> Option<Arc<WatchedSale>> {
        self.sales.read().get(&product).cloned()
    }

    fn update<T>(&self, sale: &WatchedSale, change: impl FnOnce(&mut State) -> T) -> T {
        let count = |state: &State| state.snapshot.as_ref().map_or(0, Snapshot::buyer_count);
        let mut state = sale.state.write();
        let before = count(&state);
        let result = change(&mut state);
        self.buyers.fetch_add(count(&state), Ordering::Relaxed);
        self.buyers.fetch_sub(before, Ordering::Relaxed);
        result
    }

    /// All sales that are watched; those that nobody asked for any more are forgotten.
    pub(super) fn watched(&self) -> Vec<Watched> {
        let now = Instant::now();
        self.admitted.forget_idle(now);
        let mut sales = self.sales.write();
        sales.retain(|_, sale| {
            let idle = now.duration_since(*sale.last_asked.lock()) > FORGET_AFTER;
            if idle {
                self.update(sale, |state| state.snapshot = None);
            }
            !idle
        });
        let watched = |(product, sale): (&ProductId, &Arc<WatchedSale>)| Watched {
            product: *product,
            sale: sale.clone(),
            changes: sale.state.read().changes,
        };
        sales.iter().map(watched).collect()
    }

    /// Stores a gate's reply, unless the sale changed here since the question. True: its buyers have to be copied.
    pub(super) fn take_over(
        &self,
        Watched { sale, changes, .. }: &Watched,
        gate: Option<OpenGate>,
        asked: Asked,
    ) -> bool {
        self.update(sale, |state| {
            if state.changes != *changes {
                return false;
            }
            let Some(gate) = gate else {
                state.snapshot = None;
                return false;
            };
            if let Some(snapshot) = state.snapshot.as_mut().filter(|snapshot| snapshot.is_still_full(&gate)) {
                snapshot.asked_again(asked);
                return false;
            }
            let is_full = gate.taken >= gate.settings.stock;
            // Without buyers, a snapshot denies only because of the sale window or the pause, not because the sale is sold out.
            let without_buyers = Snapshot::new(gate, asked, None);
            state.snapshot = without_buyers.denial(Instant::now()).map(|_| without_buyers);
            state.snapshot.is_none() && is_full
        })
    }

    /// Whether so many buyers more can be remembered.
    pub(super) fn has_room_for(&self, buyers: usize) -> bool {
        self.buyers.load(Ordering::Relaxed) + buyers <= MAX_BUYERS
    }

    /// Keeps the snapshot of a full sale, unless this instance has changed the sale since it was begun.
    pub(super) fn keep(&self, Watched { sale, changes, .. }: &Watched, snapshot: Snapshot) {
        self.update(sale, |state| {
            if state.changes == *changes {
                state.snapshot = Some(snapshot);
            }
        });
    }

    /// All buyers of a full sale, if this instance has admitted them.
    pub(super) fn take_admitted(&self, product: ProductId, version: GateVersion, buyers: i64) -> Option<Users> {
        self.admitted.take(product, version, buyers)
    }
}
