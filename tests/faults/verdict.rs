//! Whether a sale kept its promises: every one of them looked up, every unit counted, once all is quiet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use seckill::config::Config;
use uuid::Uuid;

use crate::books::Books;
use crate::crowd::{Crowd, Plan, Sale};
use crate::dice::Dice;

/// What was reserved and is still in flight is decided after ten seconds; the rest is for several such rounds.
const RECOVERY: Duration = Duration::from_secs(40);
/// How long buyers who come back for returned units keep trying.
const COMING_BACK: Duration = Duration::from_secs(15);
/// How long promises are asked for of which the API cannot tell yet, as when the machine leaves it no time.
const ASKED_FOR: Duration = Duration::from_secs(30);
/// Requests at the same time when promises are looked up: the program reads few orders at a time, and for the others it says 503
/// after half a second.
const LOOK_UPS: usize = 8;

/// What was found; the worst of several sales.
#[derive(Default)]
pub struct Verdict {
    pub accepted: usize,
    pub orders: usize,
    /// Promises without a live order of that buyer.
    pub lost: usize,
    /// Live orders without a unit.
    pub oversold: i64,
    /// Units that are neither sold nor for sale.
    pub leaked: i64,
    /// Buyers with two live orders, or with two promises.
    pub doubled: usize,
    /// Everything that must not be, in words.
    pub problems: Vec<String>,
}

impl Verdict {
    pub fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.orders += other.orders;
        self.lost += other.lost;
        self.oversold += other.oversold;
        self.leaked += other.leaked;
        self.doubled += other.doubled;
        self.problems.extend(other.problems);
    }

    /// Judges a sale whose crowd has dispersed. `all_answered`: no click may have been left without a reply.
    pub async fn of(sale: &Arc<Sale>, config: &Config, all_answered: bool, dice: &mut Dice) -> Self {
        let mut problems = Vec::new();
        let forgotten = look_up(sale, Duration::ZERO, |status, _| status != 200 && !asks_again(status)).await;
        if !forgotten.is_empty() {
            problems.push(format!("promised orders that were unknown right after the sale: {forgotten:?}"));
        }
        let (books, remaining) = settled(sale, config, dice).await;
        let mut verdict = Self::count(sale, &books, remaining);
        verdict.problems.splice(0..0, problems);
        let wrong = look_up(sale, ASKED_FOR, |status, order| status != 200 || order != "unpaid").await;
        if !wrong.is_empty() {
            verdict.problems.push(format!("promised orders that are not unpaid in the API: {wrong:?}"));
        }
        verdict.judge_replies(sale, all_answered);
        if !verdict.problems.is_empty() {
            let replies = format!("replies: {:?}", sale.record().replies);
            verdict.problems.push(replies);
        }
        verdict
    }

    /// Counts once more, after a restart that should have changed nothing.
    pub async fn recount(sale: &Sale, config: &Config) -> Self {
        let remaining = sale.client.remaining(sale.product).await;
        match Books::read(config, sale.product).await {
            Ok(books) => Self::count(sale, &books, remaining),
            Err(problem) => Self { problems: vec![problem], ..Self::default() },
        }
    }

    fn count(sale: &Sale, books: &Books, remaining: Option<i64>) -> Self {
        let promises = sale.promises();
        let live: HashSet<(i64, Uuid)> = books.live.iter().map(|(order, user)| (*user, *order)).collect();
        let mut orders_of: HashMap<i64, HashSet<Uuid>> = HashMap::new();
        for (user, order) in live.iter().chain(&promises) {
            orders_of.entry(*user).or_default().insert(*order);
        }
        let orders = books.live.len() as i64;
        let record = sale.record();
        let verdict = Self {
            accepted: record.replies.get("202").copied().unwrap_or_default(),
            orders: books.live.len(),
            lost: promises.iter().filter(|promise| !live.contains(promise)).count(),
            oversold: (orders - books.stock).max(0),
            leaked: books.stock - orders - remaining.unwrap_or_default(),
            doubled: orders_of.values().filter(|orders| orders.len() > 1).count(),
            problems: Vec::new(),
        };
        let told_otherwise = |user: &&i64| record.sold_out.contains(user) && !record.promises.contains_key(user);
        let turned_away = orders_of.keys().filter(told_otherwise).count();
        let mut problems = Vec::new();
        let mut expect = |what: &str, found: i64, expected: i64| {
            if found != expected {
                problems.push(format!("{what}: {found}, not {expected}"));
            }
        };
        expect("promises lost", verdict.lost as i64, 0);
        expect("buyers with two orders", verdict.doubled as i64, 0);
        expect("live orders", orders, sale.wanted() as i64);
        expect("products.stock", books.stock, sale.stock);
        expect("products.sold", books.sold, orders);
        expect("remaining", remaining.unwrap_or(-1), books.stock - orders);
        expect("units owed to the gate", books.owed, 0);
        expect("buyers with an order who were told sold_out", turned_away as i64, 0);
        Self { problems, ..verdict }
    }

    fn judge_replies(&mut self, sale: &Sale, all_answered: bool) {
        let record = sale.record();
        let unanswered = record.replies.get("no reply").copied().unwrap_or_default();
        if all_answered && unanswered > 0 {
            self.problems.push(format!("{unanswered} clicks were left without a reply"));
        }
        for (count, what) in [
            (record.undecided, "buyers never got an answer"),
            (record.denied, "times a buyer with a promise was told sold_out"),
            (record.foreign_count, "replies are not in the contract"),
        ] {
            if count > 0 {
                self.problems.push(format!("{count} {what}"));
            }
        }
        self.problems.extend(record.foreign.iter().cloned());
    }
}

/// Waits until everything is sold that can be, by sending back those who were told sold out while units were on their
/// way back. Returns the last look, whatever it shows.
async fn settled(sale: &Arc<Sale>, config: &Config, dice: &mut Dice) -> (Books, Option<i64>) {
    let begun = Instant::now();
    loop {
        let remaining = sale.client.remaining(sale.product).await;
        let books = Books::read(config, sale.product).await;
        let patient = begun.elapsed() < RECOVERY;
        match (books, remaining) {
            (Ok(books), remaining) if !patient || Verdict::count(sale, &books, remaining).problems.is_empty() => {
                return (books, remaining);
            }
            (Ok(books), Some(1..)) if books.live.len() < sale.wanted() => {
                let plan = Plan { patience: COMING_BACK, ..Plan::rush(sale.stock, sale.buyers) };
                Crowd::of(sale, sale.without_promise(), plan, dice).disperse().await;
            }
            (Err(problem), _) if !patient => panic!("the database cannot be read: {problem}"),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How many promised orders the API shows in a way that is `wrong`, by that way. Each is asked for so long as the API says that
/// it cannot tell yet, at most for `patience`.
async fn look_up(sale: &Sale, patience: Duration, wrong: impl Fn(u16, &str) -> bool) -> BTreeMap<(u16, String), usize> {
    let mut found = BTreeMap::new();
    for promises in sale.promises().chunks(LOOK_UPS) {
        let replies = join_all(promises.iter().map(|(user, order)| shown(sale, *user, *order, patience))).await;
        for reply in replies.into_iter().filter(|(status, order)| wrong(*status, order)) {
            *found.entry(reply).or_default() += 1;
        }
    }
    found
}

/// An order as the API shows it, after so long at the latest.
async fn shown(sale: &Sale, user: i64, order: Uuid, patience: Duration) -> (u16, String) {
    let until = Instant::now() + patience;
    loop {
        let (status, found) = sale.client.order(user, order).await;
        if !asks_again(status) || Instant::now() > until {
            return (status, found);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Whether the API tells nothing of an order but that it is to be asked for again; 0: no reply.
fn asks_again(status: u16) -> bool {
    matches!(status, 0 | 429 | 503)
}
