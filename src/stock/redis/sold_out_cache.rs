//! Refusals without a question to Redis.
//!
//! What refuses everybody, or everybody but the buyers, is kept here: a sale that has not begun, has ended or is paused,
//! and the buyers of one that is sold out. While a sale is full its buyers cannot change without a change of its gate's
//! version (`epoch` and `seq`), so a copy of them is exact as long as the version is the same, which is asked every
//! [`POLL_EVERY`]. When this instance has admitted them all, they need not be read. An answer that is older than [`FRESH`]
//! refuses nobody: then Redis decides. Whoever may hold a unit is always sent there.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use deadpool_redis::redis::{self, Value};
use foldhash::fast::RandomState;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::reading::Asked;
use super::replies::{OpenGate, Version, nonsense};
use super::{RedisGate, SENTINEL};
use crate::model::{Denial, ProductId, SaleSettings, Timestamp, UserId};
use crate::stock::GateError;
use crate::stock::rate_limiter::RateLimiter;

const POLL_EVERY: Duration = Duration::from_millis(80);
/// What was true this long ago is not told any more.
const FRESH: Duration = Duration::from_millis(200);
/// A sale that nobody was refused for this long is asked about no more.
const FORGET_AFTER: Duration = Duration::from_secs(10);
/// Sales that are watched at most: Redis is asked four things about each twelve times a second.
const MAX_SALES: usize = 256;
/// Buyers that are remembered at most, of all sales together: about 20 MiB in copies, and 8 MiB of admitted ones.
const MAX_BUYERS: usize = 1_000_000;
/// After its buyers were copied a sale is left alone for this many times as long.
const COPY_SHARE: u32 = 10;
/// Buyers that Redis is asked for at a time; other clients wait meanwhile.
const SCAN_COUNT: usize = 1_000;

/// Sales that refuse.
#[derive(Default)]
pub(super) struct Refusals {
    sales: RwLock<HashMap<ProductId, Arc<Sale>, RandomState>>,
    admitted: Mutex<HashMap<ProductId, Admitted, RandomState>>,
    tries: RateLimiter,
    buyers: AtomicUsize,
    new_sale: Notify,
}

struct Sale {
    state: RwLock<State>,
    last_asked: Mutex<Instant>,
}

/// Whom this instance has admitted at one version of a gate. While that version lasts no mark goes, so when they are as
/// many as the gate has marks, they are its buyers.
struct Admitted {
    version: Version,
    /// A step that was repeated names its users again.
    users: Vec<UserId>,
    last: Instant,
}

#[derive(Default)]
struct State {
    known: Option<Known>,
    /// Counts what this instance has changed: a copy that was begun before does not count any more.
    changes: u64,
}

impl Sale {
    fn unknown() -> Arc<Self> {
        Arc::new(Self { state: RwLock::default(), last_asked: Mutex::new(Instant::now()) })
    }
}

/// A gate as it was when it was asked.
struct Known {
    version: Version,
    settings: SaleSettings,
    /// All of them, if it was full.
    buyers: Option<HashSet<UserId, RandomState>>,
    asked: Asked,
}

impl Asked {
    /// The gate's clock cannot show less than this now.
    fn earliest(&self, now: Instant) -> i64 {
        self.clock.unix_ms() + now.duration_since(self.received).as_millis() as i64
    }

    /// It cannot show more.
    fn latest(&self, now: Instant) -> i64 {
        self.clock.unix_ms() + now.duration_since(self.sent).as_millis() as i64 + 1
    }
}

impl Known {
    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.asked.sent) <= FRESH
    }

    /// What denies everybody, or everybody but the buyers of a full sale, if the gate's clock leaves no doubt.
    fn denial(&self, now: Instant) -> Option<Denial> {
        let remaining = i64::from(self.buyers.is_none());
        let at = |ms| Timestamp::from_unix_ms(ms).and_then(|at| self.settings.denial(remaining, at));
        let (earliest, latest) = (at(self.asked.earliest(now))?, at(self.asked.latest(now))?);
        (earliest == latest).then_some(latest)
    }
}

impl Refusals {
    fn keep(&self, copy: BuyersCopy) {
        // A copy that failed is made again; what is missing until then is asked of Redis.
        if let Ok(Some(known)) = copy.known {
            self.update(&copy.sale, |state| {
                if state.changes == copy.changes {
                    state.known = Some(known);
                }
            });
        }
    }

    /// What a user is told without asking Redis; `None`: ask.
    pub(super) fn denial(&self, product: ProductId, user: UserId) -> Option<Denial> {
        let sale = self.sale(product)?;
        let now = Instant::now();
        *sale.last_asked.lock().unwrap_or_else(PoisonError::into_inner) = now;
        let state = sale.state.read().unwrap_or_else(PoisonError::into_inner);
        let known = state.known.as_ref().filter(|known| known.is_fresh(now))?;
        match known.denial(now)? {
            Denial::SoldOut if known.buyers.as_ref().is_none_or(|buyers| buyers.contains(&user)) => None,
            Denial::SoldOut => Some(match self.tries.note(product, user, now) {
                Err(wait) => Denial::RateLimited(wait),
                Ok(()) => Denial::SoldOut,
            }),
            denial => Some(denial),
        }
    }

    /// Redis has refused these users: from now on the sale is watched, and their tries count here.
    pub(super) fn watch_sale(&self, product: ProductId, refused: impl Iterator<Item = UserId>) {
        let now = Instant::now();
        for user in refused {
            // One that was too early does not extend the wait.
            let _ = self.tries.note(product, user, now);
        }
        if self.sale(product).is_some() {
            return;
        }
        let mut sales = self.sales.write().unwrap_or_else(PoisonError::into_inner);
        if sales.len() < MAX_SALES {
            sales.entry(product).or_insert_with(Sale::unknown);
            self.new_sale.notify_one();
        }
    }

    /// Redis has given these users units at that version of the gate.
    pub(super) fn admitted(&self, product: ProductId, version: Version, users: impl Iterator<Item = UserId>) {
        let mut all = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_SALES && !all.contains_key(&product) {
            return;
        }
        let have = all.values().map(|known| known.users.len()).sum::<usize>();
        let last = Instant::now();
        let new = || Admitted { version, users: Vec::new(), last };
        let known = all.entry(product).or_insert_with(new);
        if known.version != version || have > MAX_BUYERS {
            *known = new();
        }
        known.users.extend(users);
        known.last = last;
    }

    /// All buyers of a full sale, if this instance has admitted them. They are not noted any longer in either case, for a
    /// full sale admits nobody.
    fn take_admitted(&self, product: ProductId, version: Version, taken: i64) -> Option<HashSet<UserId, RandomState>> {
        let known = self.admitted.lock().unwrap_or_else(PoisonError::into_inner).remove(&product)?;
        let users: HashSet<_, _> = known.users.into_iter().collect();
        (known.version == version && users.len() as i64 == taken).then_some(users)
    }

    /// A sale was changed here: nothing that was known of it counts any more.
    pub(super) fn forget(&self, product: ProductId) {
        if let Some(sale) = self.sale(product) {
            self.update(&sale, |state| {
                state.changes += 1;
                state.known = None;
            });
        }
    }

    fn sale(&self, product: ProductId) -> Option<Arc<Sale>> {
        self.sales.read().unwrap_or_else(PoisonError::into_inner).get(&product).cloned()
    }

    fn update<T>(&self, sale: &Sale, change: impl FnOnce(&mut State) -> T) -> T {
        let count =
            |state: &State| state.known.as_ref().and_then(|known| Some(known.buyers.as_ref()?.len())).unwrap_or(0);
        let mut state = sale.state.write().unwrap_or_else(PoisonError::into_inner);
        let before = count(&state);
        let result = change(&mut state);
        self.buyers.fetch_add(count(&state), Ordering::Relaxed);
        self.buyers.fetch_sub(before, Ordering::Relaxed);
        result
    }

    /// All sales that are watched, and their changes so far; those that nobody asked for any more are forgotten.
    fn watched(&self) -> Vec<(ProductId, Arc<Sale>, u64)> {
        let now = Instant::now();
        let is_idle = |sale: &Sale| {
            now.duration_since(*sale.last_asked.lock().unwrap_or_else(PoisonError::into_inner)) > FORGET_AFTER
        };
        let mut sales = self.sales.write().unwrap_or_else(PoisonError::into_inner);
        sales.retain(|_, sale| {
            let idle = is_idle(sale);
            if idle {
                self.update(sale, |state| state.known = None);
            }
            !idle
        });
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        admitted.retain(|_, known| now.duration_since(known.last) <= FORGET_AFTER);
        let changes = |sale: &Sale| sale.state.read().unwrap_or_else(PoisonError::into_inner).changes;
        sales.iter().map(|(product, sale)| (*product, sale.clone(), changes(sale))).collect()
    }

    /// Takes over what a gate showed that was asked after so many changes. True: its buyers have to be copied.
    fn take_over(&self, sale: &Sale, changes: u64, gate: Option<OpenGate>, asked: Asked) -> bool {
        self.update(sale, |state| {
            if state.changes != changes {
                return false;
            }
            let Some(OpenGate { settings, version, taken, .. }) = gate else {
                state.known = None;
                return false;
            };
            if let Some(known) = &mut state.known
                && known.version == version
                && known.buyers.as_ref().is_some_and(|buyers| buyers.len() as i64 == taken)
            {
                known.asked = asked;
                return false;
            }
            let closed = Known { version, settings, buyers: None, asked };
            // With a unit left nothing else denies it than that the sale is not open.
            state.known = closed.denial(Instant::now()).map(|_| closed);
            state.known.is_none() && taken >= settings.stock
        })
    }
}

/// A copy of a full sale's buyers.
struct BuyersCopy {
    product: ProductId,
    sale: Arc<Sale>,
    /// As they were when it was begun.
    changes: u64,
    begun: Instant,
    /// `None`: the gate has changed meanwhile.
    known: Result<Option<Known>, GateError>,
}

impl RedisGate {
    /// Keeps what refuses up to date. Ends with `stop`.
    pub(super) async fn keep_refusals(&self, stop: &CancellationToken) {
        // One at a time, so that Redis has others to serve as well.
        let mut copying = FuturesUnordered::<BoxFuture<'_, BuyersCopy>>::new();
        let mut not_before: HashMap<ProductId, Instant> = HashMap::new();
        let mut tick = tokio::time::interval(POLL_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(copy) = copying.next() => {
                    not_before.insert(copy.product, Instant::now() + COPY_SHARE * copy.begun.elapsed());
                    self.refusals.keep(copy);
                }
                _ = tick.tick() => {
                    not_before.retain(|_, at| *at > Instant::now());
                    let full = self.poll().await;
                    let next = full.into_iter().find(|(product, ..)| !not_before.contains_key(product));
                    if let Some((product, sale, changes)) = next && copying.is_empty() {
                        copying.push(self.copy(product, sale, changes).boxed());
                    }
                }
                () = self.refusals.new_sale.notified() => tick.reset_immediately(),
            }
        }
    }

    /// Asks about all watched sales; those that are full and whose buyers are not known.
    async fn poll(&self) -> Vec<(ProductId, Arc<Sale>, u64)> {
        let sales = self.refusals.watched();
        if sales.is_empty() {
            return Vec::new();
        }
        let products: Vec<ProductId> = sales.iter().map(|(product, ..)| *product).collect();
        // When Redis is away, what was known is soon too old to refuse anybody.
        let Ok((asked, gates)) = self.ask_gates(&self.cells[0], &products).await else { return Vec::new() };
        let mut full = Vec::new();
        for ((product, sale, changes), gate) in sales.into_iter().zip(gates) {
            let taken = gate.as_ref().map_or(0, |gate| gate.taken as usize);
            if self.refusals.take_over(&sale, changes, gate, asked)
                && self.refusals.buyers.load(Ordering::Relaxed) + taken <= MAX_BUYERS
            {
                full.push((product, sale, changes));
            }
        }
        full
    }

    async fn copy(&self, product: ProductId, sale: Arc<Sale>, changes: u64) -> BuyersCopy {
        let begun = Instant::now();
        let known = self.copy_buyers(product).await;
        BuyersCopy { product, sale, changes, begun, known }
    }

    /// Exact if the gate's version was the same before and after, and it was full both times.
    async fn copy_buyers(&self, product: ProductId) -> Result<Option<Known>, GateError> {
        let full = |gates: Vec<Option<OpenGate>>| {
            let gate = gates.into_iter().next().flatten()?;
            (gate.taken >= gate.settings.stock).then_some(gate)
        };
        let (_, before) = self.ask_gates(self.cell(product), &[product]).await?;
        let Some(before) = full(before) else { return Ok(None) };
        let buyers = match self.refusals.take_admitted(product, before.version, before.taken) {
            Some(buyers) => buyers,
            None => self.scan_buyers(product).await?,
        };
        let (asked, after) = self.ask_gates(self.cell(product), &[product]).await?;
        let same = full(after).filter(|after| after.version == before.version && after.taken == buyers.len() as i64);
        Ok(same.map(|OpenGate { settings, version, .. }| Known { version, settings, buyers: Some(buyers), asked }))
    }

    async fn scan_buyers(&self, product: ProductId) -> Result<HashSet<UserId, RandomState>, GateError> {
        let cell = &self.cells[0];
        let link = self.link(cell).await?;
        let mut buyers = HashSet::default();
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(self.keys.buyers(product)).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
            let reply = scan.query_async::<(u64, Vec<(String, Value)>)>(&mut link.conn()).await;
            let (next, found) = self.answered(cell, &link, reply)?;
            for (user, _) in found.iter().filter(|(user, _)| user != SENTINEL) {
                buyers.insert(user.parse().map_err(nonsense)?);
            }
            if next == 0 {
                return Ok(buyers);
            }
            cursor = next;
        }
    }
}
