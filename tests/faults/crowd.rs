//! Buyers who keep clicking until they know: a promise or sold out. What they were told is written down.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use uuid::Uuid;

use crate::client::{Answer, Click, Client};
use crate::dice::Dice;

/// Buyers that click at the same time.
const CLICKING: usize = 64;
/// Replies outside the contract that are kept word by word.
const FOREIGN_KEPT: usize = 3;

/// A sale of one product.
pub struct Sale {
    pub client: Client,
    pub product: i64,
    pub stock: i64,
    pub buyers: i64,
    record: Mutex<Record>,
}

/// What a sale is to be like.
#[derive(Clone, Copy)]
pub struct Plan {
    pub stock: i64,
    pub buyers: i64,
    /// About how long the buyers keep coming, when all goes well.
    pub lasting: Duration,
    /// Then whoever knows nothing yet gives up.
    pub patience: Duration,
}

impl Plan {
    /// As many buyers as quickly as they can.
    pub const fn rush(stock: i64, buyers: i64) -> Self {
        Self { stock, buyers, lasting: Duration::ZERO, patience: Duration::from_secs(90) }
    }
}

/// What the buyers were told.
#[derive(Default)]
pub struct Record {
    /// The orders that each buyer was promised: one, one hopes.
    pub promises: HashMap<i64, HashSet<Uuid>>,
    /// Each buyer's first promise.
    pub sold_at: Vec<Instant>,
    pub replies: BTreeMap<String, usize>,
    /// Replies outside the contract.
    pub foreign: Vec<String>,
    pub foreign_count: usize,
    /// Buyers who gave up.
    pub undecided: usize,
    /// Buyers who were told `sold_out` although they had a promise.
    pub denied: usize,
    pub sold_out: HashSet<i64>,
}

impl Sale {
    pub fn new(client: Client, product: i64, plan: Plan) -> Arc<Self> {
        let record = Mutex::new(Record::default());
        Arc::new(Self { client, product, stock: plan.stock, buyers: plan.buyers, record })
    }

    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap()
    }

    /// Orders that there must be in the end.
    pub fn wanted(&self) -> usize {
        self.stock.min(self.buyers) as usize
    }

    /// Every promise that was given.
    pub fn promises(&self) -> Vec<(i64, Uuid)> {
        let record = self.record();
        record.promises.iter().flat_map(|(user, orders)| orders.iter().map(|order| (*user, *order))).collect()
    }

    pub fn without_promise(&self) -> Vec<i64> {
        let record = self.record();
        (1..=self.buyers).filter(|user| !record.promises.contains_key(user)).collect()
    }

    /// Whether there is nothing left to sell, or nobody to sell it to.
    fn is_over(&self, record: &Record) -> bool {
        !record.sold_out.is_empty() || record.sold_at.len() >= self.wanted()
    }

    async fn click(&self, user: i64, token: &str, instance: usize) -> Answer {
        let Click { answer, label } = self.client.buy(token, self.product, instance).await;
        let mut record = self.record();
        *record.replies.entry(label).or_default() += 1;
        match &answer {
            Answer::Promised { order } => {
                let orders = record.promises.entry(user).or_default();
                if orders.insert(*order) && orders.len() == 1 {
                    record.sold_at.push(Instant::now());
                }
            }
            Answer::SoldOut => {
                record.denied += usize::from(record.promises.contains_key(&user));
                record.sold_out.insert(user);
            }
            Answer::Foreign(reply) => {
                record.foreign_count += 1;
                if record.foreign.len() < FOREIGN_KEPT {
                    record.foreign.push(reply.clone());
                }
            }
            Answer::Later | Answer::Nothing => {}
        }
        answer
    }

    /// One buyer, to the end. Some click twice at once, some go on clicking after their promise, some leave without an
    /// answer: what was taken for them nobody asks for again.
    async fn shop(&self, user: i64, deadline: Instant, mut dice: Dice) {
        let token = self.client.buyer(user);
        let twice = dice.one_in(8);
        let on_and_on = dice.one_in(8);
        let impatient = dice.one_in(8);
        while Instant::now() < deadline {
            let instance = dice.among(0..1000) as usize;
            let answer = if twice {
                let (one, other) =
                    tokio::join!(self.click(user, &token, instance), self.click(user, &token, instance + 1));
                if one.is_final() { one } else { other }
            } else {
                self.click(user, &token, instance).await
            };
            match answer {
                Answer::Promised { .. } if on_and_on => {
                    for _ in 0..3 {
                        self.click(user, &token, dice.among(0..1000) as usize).await;
                    }
                    return;
                }
                Answer::Promised { .. } | Answer::SoldOut => return,
                Answer::Later | Answer::Nothing if impatient => return,
                Answer::Later | Answer::Foreign(_) | Answer::Nothing => {
                    tokio::time::sleep(dice.millis(50..450)).await;
                }
            }
        }
        self.record().undecided += 1;
    }
}

/// The buyers of a sale, at it.
pub struct Crowd {
    pub sale: Arc<Sale>,
    started: Instant,
    deadline: Instant,
    buying: JoinSet<()>,
}

impl Crowd {
    /// Sends everybody.
    pub fn gather(sale: &Arc<Sale>, plan: Plan, dice: &mut Dice) -> Self {
        Self::of(sale, (1..=sale.buyers).collect(), plan, dice)
    }

    /// Sends these buyers.
    pub fn of(sale: &Arc<Sale>, users: Vec<i64>, plan: Plan, dice: &mut Dice) -> Self {
        let started = Instant::now();
        let deadline = started + plan.patience;
        // On average each of those who click at the same time waits half of this before each of its turns.
        let pause = plan.lasting.as_millis() as u64 * 2 * CLICKING as u64 / (users.len() as u64).max(1);
        let to_come = Arc::new(Mutex::new(users.into_iter()));
        let mut buying = JoinSet::new();
        for _ in 0..CLICKING {
            let (sale, to_come, mut dice) = (sale.clone(), to_come.clone(), dice.fork());
            buying.spawn(async move {
                loop {
                    tokio::time::sleep(dice.millis(0..pause + 1)).await;
                    let next = to_come.lock().unwrap().next();
                    let Some(user) = next else { return };
                    sale.shop(user, deadline, dice.fork()).await;
                }
            });
        }
        Self { sale: sale.clone(), started, deadline, buying }
    }

    /// Waits until this share of the stock is sold, in percent, or all buyers have given up.
    pub async fn sold(&self, percent: u64) {
        let units = (self.sale.stock as u64 * percent / 100) as usize;
        while self.sale.record().sold_at.len() < units && Instant::now() < self.deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// How long after `since` the next unit was sold; `None` if it took longer than `limit`. No time at all if there was
    /// none left to sell.
    pub async fn sells_after(&self, since: Instant, limit: Duration) -> Option<Duration> {
        loop {
            {
                let record = self.sale.record();
                if let Some(at) = record.sold_at.iter().find(|at| **at > since) {
                    return Some(*at - since);
                }
                if self.sale.is_over(&record) {
                    return Some(Duration::ZERO);
                }
            }
            if since.elapsed() > limit {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until all of them know; the longest time without a sale while there was something to sell.
    pub async fn disperse(self) -> Duration {
        self.buying.join_all().await;
        let sold_at = self.sale.record().sold_at.clone();
        let mut idle = Duration::ZERO;
        let mut last = self.started;
        for at in &sold_at {
            idle = idle.max(at.saturating_duration_since(last));
            last = *at;
        }
        if self.sale.is_over(&self.sale.record()) { idle } else { idle.max(last.elapsed()) }
    }
}
