//! One test: its stores, its dice, what was done to the program and what came of it.

use std::fmt::Display;
use std::io::Write;
use std::sync::{Arc, Once};
use std::time::Duration;

use seckill::config::{Backend, Config};

use crate::client::Client;
use crate::crowd::{Crowd, Plan, Sale};
use crate::dice::{self, Dice};
use crate::server::Server;
use crate::support::Stores;
use crate::verdict::Verdict;

static HEADER: Once = Once::new();

pub struct Trial {
    fault: String,
    seed: u64,
    pub dice: Dice,
    /// Where the stores are. What stands between them and the program, the program alone is told.
    pub config: Config,
    /// How often the fault happened.
    pub injected: usize,
    /// Set when a process was killed, which leaves clicks without a reply.
    pub unanswered_allowed: bool,
    idle: Duration,
    selling_again: Option<Duration>,
    found: Verdict,
    stores: Stores,
}

impl Trial {
    pub async fn begin(fault: impl Into<String>, backend: Backend) -> Self {
        let stores = Stores::new(backend).await;
        let seed = dice::seed();
        Self {
            fault: fault.into(),
            seed,
            dice: Dice::new(seed),
            config: stores.config(),
            injected: 0,
            unanswered_allowed: false,
            idle: Duration::ZERO,
            selling_again: None,
            found: Verdict::default(),
            stores,
        }
    }

    /// A new product and a crowd that buys it, at any of these instances.
    pub async fn open_sale(&mut self, servers: &[&Server], plan: Plan) -> Crowd {
        let client = Client::new(&self.config, servers.iter().map(|server| server.url()).collect());
        let product = client.new_product(plan.stock).await;
        let sale = Sale::new(client, product, plan);
        Crowd::gather(&sale, plan, &mut self.dice)
    }

    pub async fn kill(&mut self, server: &mut Server) {
        server.kill().await;
        self.injected += 1;
        self.unanswered_allowed = true;
    }

    /// Notes after how long units were sold again.
    pub fn sold_again(&mut self, after: Option<Duration>, limit: Duration) {
        match after {
            Some(after) => self.selling_again = self.selling_again.max(Some(after)),
            None => self.problem(format!("nothing was sold for {limit:?} after the fault")),
        }
    }

    /// Checks that buyers were asked to come again while nothing could be sold.
    pub fn refused_meanwhile(&mut self, crowd: &Crowd) {
        if !crowd.sale.record().replies.contains_key("503 unavailable") {
            self.problem("no buyer was told 503 unavailable meanwhile");
        }
    }

    pub fn problem(&mut self, problem: impl Display) {
        self.found.problems.push(problem.to_string());
    }

    /// Waits for the crowd and judges its sale.
    pub async fn judge(&mut self, crowd: Crowd) -> Arc<Sale> {
        let sale = crowd.sale.clone();
        self.idle = self.idle.max(crowd.disperse().await);
        let verdict = Verdict::of(&sale, &self.config, !self.unanswered_allowed, &mut self.dice).await;
        self.found.add(verdict);
        sale
    }

    /// Counts earlier sales once more.
    pub async fn recount(&mut self, sales: &[Arc<Sale>]) {
        for sale in sales {
            let again = Verdict::recount(sale, &self.config).await;
            for problem in again.problems {
                self.problem(format!("product {}, later: {problem}", sale.product));
            }
        }
    }

    /// Ends the program, prints a line of the table, and fails if anything was found.
    pub async fn finish(self, servers: Vec<Server>) {
        self.print();
        assert!(self.found.problems.is_empty(), "FAULT_SEED={}\n{}", self.seed, self.found.problems.join("\n"));
        for mut server in servers {
            server.kill().await;
        }
        self.stores.remove().await;
    }

    /// To the terminal itself: the table is what one runs these tests for, also when they pass.
    fn print(&self) {
        let mut out = std::io::stderr().lock();
        HEADER.call_once(|| {
            let _ = writeln!(
                out,
                "\n{:<52} {:>5} {:>6} {:>6} {:>5} {:>8} {:>6} {:>7} {:>8} {:>8}  seed",
                "fault", "times", "202s", "orders", "lost", "oversold", "leaked", "doubled", "idle ms", "again ms"
            );
        });
        let Verdict { accepted, orders, lost, oversold, leaked, doubled, .. } = &self.found;
        let again = self.selling_again.map_or("-".to_owned(), |after| after.as_millis().to_string());
        let _ = writeln!(
            out,
            "{:<52} {:>5} {accepted:>6} {orders:>6} {lost:>5} {oversold:>8} {leaked:>6} {doubled:>7} {:>8} {again:>8}  {}",
            self.fault,
            self.injected,
            self.idle.as_millis(),
            self.seed
        );
    }
}
