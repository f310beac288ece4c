//! Refusals without a question to Redis.
//!
//! What refuses everybody, or everybody but the buyers, is kept here: a sale that has not begun, has ended or is paused,
//! and the buyers of one that is sold out. While a sale is full its buyers cannot change without a change of its gate's
//! `seq`, so a copy of them is exact as long as `seq` is the same, which is asked every [`POLL_EVERY`]. An answer that is
//! older than [`FRESH`] refuses nobody: then Redis decides. Whoever may hold a unit is always sent there.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use deadpool_redis::redis::{self, Value};
use foldhash::fast::RandomState;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::replies::{OpenGate, nonsense, parse, parse_gate};
use super::{GATE_FIELDS, RedisGate, SENTINEL, buyers_key, gate_key};
use crate::model::{ProductId, SaleState, SaleTerms, Timestamp, UserId};
use crate::stock::recent_tries::RecentTries;
use crate::stock::{GateError, Refusal};

const POLL_EVERY: Duration = Duration::from_millis(80);
/// What was true this long ago is not told any more.
const FRESH: Duration = Duration::from_millis(200);
/// A sale that nobody was refused for this long is asked about no more.
const FORGET_AFTER: Duration = Duration::from_secs(10);
/// Sales that are watched at most: Redis is asked three things about each twelve times a second.
const SALES_MOST: usize = 256;
/// Buyers that are remembered at most, of all sales together: about 20 MiB.
const BUYERS_MOST: usize = 1_000_000;
/// Buyers that Redis is asked for at a time; other clients wait meanwhile.
const SCAN_COUNT: usize = 1_000;

/// Sales that refuse.
#[derive(Default)]
pub(super) struct Refusals {
    sales: RwLock<HashMap<ProductId, Arc<Sale>>>,
    tries: RecentTries,
    buyers: AtomicUsize,
    new_sale: Notify,
}

struct Sale {
    known: RwLock<Option<Known>>,
    last_asked: Mutex<Instant>,
}

impl Sale {
    fn unknown() -> Arc<Self> {
        Arc::new(Self { known: RwLock::default(), last_asked: Mutex::new(Instant::now()) })
    }
}

/// A gate as it was when it was asked.
struct Known {
    seq: i64,
    terms: SaleTerms,
    /// All of them, if it was full.
    buyers: Option<HashSet<UserId, RandomState>>,
    asked: Asked,
}

/// When a gate was asked, by our clock and by its own.
#[derive(Clone, Copy)]
struct Asked {
    sent: Instant,
    received: Instant,
    clock: Timestamp,
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

    /// The state, if the gate's clock leaves no doubt.
    fn state(&self, now: Instant) -> Option<SaleState> {
        let remaining = i64::from(self.buyers.is_none());
        let at = |ms| Timestamp::from_unix_ms(ms).map(|at| self.terms.state(remaining, at));
        let (earliest, latest) = (at(self.asked.earliest(now))?, at(self.asked.latest(now))?);
        (earliest == latest).then_some(latest)
    }
}

impl Refusals {
    /// What a user is told without asking Redis; `None`: ask.
    pub(super) fn refusal(&self, product: ProductId, user: UserId) -> Option<Refusal> {
        let sale = self.sale(product)?;
        let now = Instant::now();
        *sale.last_asked.lock().unwrap_or_else(PoisonError::into_inner) = now;
        let known = sale.known.read().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref().filter(|known| known.is_fresh(now))?;
        match known.state(now)? {
            SaleState::Live => None,
            SaleState::Upcoming => Some(Refusal::NotStarted(known.terms.starts_at)),
            SaleState::Ended => Some(Refusal::Ended),
            SaleState::Paused => Some(Refusal::Paused),
            SaleState::SoldOut if known.buyers.as_ref().is_none_or(|buyers| buyers.contains(&user)) => None,
            SaleState::SoldOut => Some(match self.tries.note(product, user, now) {
                Err(wait) => Refusal::RateLimited(wait),
                Ok(()) => Refusal::SoldOut,
            }),
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
        if sales.len() < SALES_MOST {
            sales.entry(product).or_insert_with(Sale::unknown);
            self.new_sale.notify_one();
        }
    }

    /// A sale was changed here: nothing that was known of it counts any more.
    pub(super) fn forget(&self, product: ProductId) {
        let forgotten = self.sales.write().unwrap_or_else(PoisonError::into_inner).remove(&product);
        if let Some(sale) = forgotten {
            self.set(&sale, None);
        }
    }

    fn sale(&self, product: ProductId) -> Option<Arc<Sale>> {
        self.sales.read().unwrap_or_else(PoisonError::into_inner).get(&product).cloned()
    }

    fn set(&self, sale: &Sale, known: Option<Known>) {
        let count =
            |known: &Option<Known>| known.as_ref().and_then(|known| Some(known.buyers.as_ref()?.len())).unwrap_or(0);
        self.buyers.fetch_add(count(&known), Ordering::Relaxed);
        let mut place = sale.known.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *place, known);
        self.buyers.fetch_sub(count(&before), Ordering::Relaxed);
    }
}

impl RedisGate {
    /// Keeps what refuses up to date. Ends with `stop`.
    pub(super) async fn keep_refusals(&self, stop: &CancellationToken) {
        let mut loads = FuturesUnordered::new();
        let mut loading = HashSet::new();
        let mut tick = tokio::time::interval(POLL_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some((product, sale, known)) = loads.next() => {
                    loading.remove(&product);
                    self.keep_loaded(product, &sale, known);
                }
                _ = tick.tick() => for (product, sale) in self.changed_sales().await {
                    if loading.insert(product) {
                        loads.push(async move { (product, sale, self.look(product).await) });
                    }
                },
                () = self.refusals.new_sale.notified() => tick.reset_immediately(),
            }
        }
    }

    fn keep_loaded(&self, product: ProductId, sale: &Arc<Sale>, known: Result<Option<Known>, GateError>) {
        match known {
            Ok(Some(known)) => {
                self.refusals.set(sale, Some(known));
                // Forgotten while it was asked for: whoever still holds it must not believe it.
                if !self.refusals.sale(product).is_some_and(|current| Arc::ptr_eq(&current, sale)) {
                    self.refusals.set(sale, None);
                }
            }
            Ok(None) => self.refusals.forget(product),
            // Redis is away: nothing is known, and the next poll asks again.
            Err(_) => self.refusals.set(sale, None),
        }
    }

    /// Asks for the `seq` of all watched sales; those of which nothing, or something else, is known.
    async fn changed_sales(&self) -> Vec<(ProductId, Arc<Sale>)> {
        let now = Instant::now();
        let is_idle = |sale: &Sale| {
            now.duration_since(*sale.last_asked.lock().unwrap_or_else(PoisonError::into_inner)) > FORGET_AFTER
        };
        let sales: Vec<(ProductId, Arc<Sale>)> = {
            let sales = self.refusals.sales.read().unwrap_or_else(PoisonError::into_inner);
            sales.iter().map(|(product, sale)| (*product, sale.clone())).collect()
        };
        let (idle, sales): (Vec<_>, Vec<_>) = sales.into_iter().partition(|(_, sale)| is_idle(sale));
        idle.iter().for_each(|(product, _)| self.refusals.forget(*product));
        if sales.is_empty() {
            return sales;
        }
        let Ok((asked, gates)) = self.ask_gates(sales.iter().map(|(product, _)| *product)).await else {
            return Vec::new();
        };
        let mut changed = Vec::new();
        for ((product, sale), gate) in sales.into_iter().zip(gates) {
            let mut known = sale.known.write().unwrap_or_else(PoisonError::into_inner);
            match (&mut *known, gate) {
                (Some(known), Some(gate)) if known.seq == gate.seq => known.asked = asked,
                _ => {
                    drop(known);
                    changed.push((product, sale));
                }
            }
        }
        changed
    }

    /// Reads a gate, and its buyers if it is full. `None`: it refuses nobody, or its buyers are too many to keep.
    async fn look(&self, product: ProductId) -> Result<Option<Known>, GateError> {
        let (asked, gates) = self.ask_gates([product].into_iter()).await?;
        let Some(OpenGate { terms, seq, taken }) = gates.into_iter().next().flatten() else { return Ok(None) };
        let closed = Known { seq, terms, buyers: None, asked };
        match closed.state(Instant::now()) {
            Some(SaleState::Upcoming | SaleState::Ended | SaleState::Paused) => return Ok(Some(closed)),
            _ if taken < terms.stock => return Ok(None),
            _ => {}
        }
        if self.refusals.buyers.load(Ordering::Relaxed) + taken as usize > BUYERS_MOST {
            return Ok(None);
        }
        let buyers = self.scan_buyers(product).await?;
        let (asked, gates) = self.ask_gates([product].into_iter()).await?;
        let same = gates.into_iter().next().flatten().is_some_and(|gate| gate.seq == seq && gate.taken == taken);
        // Changed meanwhile: the next poll finds that nothing is known, and asks again.
        let known = Known { seq, terms, buyers: Some(buyers), asked };
        if same { Ok(Some(known)) } else { Err(GateError::Unclear("changed meanwhile".to_owned())) }
    }

    async fn ask_gates(
        &self,
        products: impl Iterator<Item = ProductId>,
    ) -> Result<(Asked, Vec<Option<OpenGate>>), GateError> {
        let slot = &self.slots[0];
        let link = slot.link().await?;
        let mut ask = redis::pipe();
        ask.cmd("TIME");
        let mut count = 0;
        for product in products {
            ask.cmd("HMGET").arg(gate_key(product)).arg(&GATE_FIELDS);
            ask.hget(buyers_key(product), SENTINEL).hlen(buyers_key(product));
            count += 1;
        }
        let sent = Instant::now();
        let reply = ask.query_async::<Vec<Value>>(&mut link.conn()).await;
        let mut reply = self.answered(slot, &link, reply)?.into_iter();
        let received = Instant::now();
        let mut next = || reply.next().ok_or_else(|| nonsense("a short reply"));
        let (seconds, micros): (i64, i64) = parse(next()?)?;
        let clock = Timestamp::from_unix_ms(seconds * 1000 + micros / 1000).ok_or_else(|| nonsense("the time"))?;
        let gate = |_| {
            let fields: Vec<Option<String>> = parse(next()?)?;
            let sentinel: Option<String> = parse(next()?)?;
            let marks: i64 = parse(next()?)?;
            parse_gate(&fields, sentinel.as_deref(), marks, &link.home)
        };
        let gates = (0..count).map(gate).collect::<Result<_, _>>()?;
        Ok((Asked { sent, received, clock }, gates))
    }

    async fn scan_buyers(&self, product: ProductId) -> Result<HashSet<UserId, RandomState>, GateError> {
        let slot = &self.slots[0];
        let link = slot.link().await?;
        let mut buyers = HashSet::default();
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(buyers_key(product)).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
            let reply = scan.query_async::<(u64, Vec<(String, Value)>)>(&mut link.conn()).await;
            let (next, found) = self.answered(slot, &link, reply)?;
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
