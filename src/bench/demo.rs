//! `seckill demo`: a sale in less than a minute. A server of its own in a folder of its own, a crowd that clicks too often and of
//! which some never pay, a second crowd for what comes back, and the proof of units and money.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::{StreamExt, TryStreamExt};
use secrecy::ExposeSecret;

use super::generator::{Load, Pace, Run};
use super::ledger::{self, Money};
use super::proof::Proof;
use super::target::{BenchFolder, TargetApi, fire_with_bar};
use super::unless_stopped;
use crate::app::RunningApp;
use crate::config::{self, Backend, Config, Provider};
use crate::data_dir::{random_key, random_password};
use crate::db::{Db, DbError};
use crate::model::{OrderId, ProductId, Timestamp};
use crate::services::Tokens;

/// What `seckill demo` can be told.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Units on sale.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    stock: u32,
    /// Buyers; each clicks twice.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=500_000))]
    buyers: u32,
}

/// Clicks under way at once.
const CONNECTIONS: usize = 256;
/// Buyers who pay at once.
const PAYING: usize = 16;
/// One buyer of so many never pays.
const NEVER_PAYS: usize = 10;
/// Buyers of the second crowd for each unit that came back.
const SECOND_CROWD: usize = 20;
/// A payment cannot begin later than ten seconds before its deadline. So many seconds for that, and some for each order.
const LEAST_WINDOW: u64 = 15;
const PAID_A_SECOND: u64 = 250;
/// For what comes back, after its deadline.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the sale can be looked at, if nobody ends it.
const SHOWN_FOR: Duration = Duration::from_secs(600);

/// A sale that is over, and its server.
pub(super) struct Shown {
    app: RunningApp,
    admin: config::Admin,
    /// Gone with it.
    _folder: BenchFolder,
}

impl Shown {
    /// Whoever sits before it may look at the sale, until a signal.
    pub(super) async fn stay(self) -> Result<(), String> {
        if std::io::stdout().is_terminal() {
            say!(
                "\nLook at the sale: http://{}/console (user {}, password {}). Ctrl-C ends it.",
                self.app.address(),
                self.admin.username,
                self.admin.password.expose_secret()
            );
            let shown = async {
                tokio::time::sleep(SHOWN_FOR).await;
                Ok(())
            };
            // A signal is how one ends it, and no failure.
            let _ = unless_stopped(shown).await;
        }
        self.app.stop().await;
        Ok(())
    }
}

/// Sells, and proves.
pub(super) async fn run(mut config: Config, args: &DemoArgs) -> Result<Shown, String> {
    let folder = BenchFolder::make()?;
    config.backend = Backend::Embedded;
    config.embedded.data_dir = folder.0.clone();
    config.server.host = "127.0.0.1".to_owned();
    config.server.port = 0;
    config.server.admin_port = 0;
    config.payments.provider = Provider::Test;
    config.auth.jwt_secret = random_key().into();
    config.admin.password = random_password().into();
    let app = RunningApp::start(&config).await.map_err(|error| error.to_string())?;
    let tokens = Tokens::new(&config.auth.jwt_secret, Duration::from_secs(3600));
    let shown = Shop {
        api: TargetApi::new(app.address(), tokens),
        db: Db::sqlite(&folder.0.join("seckill.db")),
        window: LEAST_WINDOW + u64::from(args.stock) / PAID_A_SECOND,
    };
    match shown.sell(args).await {
        Ok(()) => Ok(Shown { app, admin: config.admin, _folder: folder }),
        Err(problem) => {
            app.stop().await;
            Err(problem)
        }
    }
}

struct Shop {
    api: TargetApi,
    db: Db,
    /// Seconds to pay.
    window: u64,
}

impl Shop {
    async fn sell(&self, args: &DemoArgs) -> Result<(), String> {
        let (stock, buyers) = (args.stock as usize, args.buyers as usize);
        let product = self.api.new_product_to_be_paid(stock, self.window).await?;
        say!("{stock} units go on sale, {buyers} buyers click twice each.");
        let run = self.crowd(product, 0, buyers, 2).await?;
        let accepted = run.count("202");
        let first = Proof::wait(&self.db, product, accepted, |_| ()).await?;
        show_clicks(&run, stock);
        first.check()?;

        let paid = self.pay(product, NEVER_PAYS).await?;
        let unpaid = accepted - paid;
        say!("{paid} of {accepted} buyers pay; {unpaid} never do, and have {} seconds for it.", self.window);
        let (returned, late) = self.wait_for_units(product).await?;

        let (mut again, mut accepted_again, mut paid_again) = (0, 0, 0);
        if returned > 0 {
            again = (returned as usize * SECOND_CROWD).min(buyers);
            say!("{returned} units are back on sale, {again} more buyers click.");
            let run = self.crowd(product, buyers, again, 1).await?;
            accepted_again = run.count("202");
            Proof::wait(&self.db, product, paid + accepted_again, |_| ()).await?;
            paid_again = self.pay(product, usize::MAX).await?;
        }
        let last = Proof::wait(&self.db, product, paid + accepted_again, |_| ()).await?;
        let money = self.money(product).await?;
        let left = self.api.remaining(product).await?;
        show([("clicks of the second crowd", again.to_string()), ("accepted (202)", accepted_again.to_string())]);
        let row = |name, value: i64| (name, value.to_string());
        show([
            row("stock", last.counted.stock),
            row("paid", money.paid),
            row("left", left),
            row("expired, units came back", money.expired),
            ("after the last deadline", format!("{:.1} s", late.as_secs_f64())),
            row("buyers with two orders", last.doubles()),
            row("oversold", last.oversold()),
            ("price of what is paid", in_money(money.asked_cents)),
            ("money that came", in_money(money.kept_cents)),
        ]);
        last.check()?;
        check(last.counted.stock, left, (paid + paid_again) as i64, unpaid as i64, &money)
    }

    /// A crowd clicks, each of it so many times.
    async fn crowd(&self, product: ProductId, first: usize, buyers: usize, times: usize) -> Result<Run, String> {
        let clicks = self.api.clicks(product, first, buyers)?;
        let requests: Vec<_> = clicks.into_iter().flat_map(|click| std::iter::repeat_n(click, times)).collect();
        let count = requests.len();
        let addresses = vec![self.api.address()];
        let load = Load { addresses, requests, count, connections: CONNECTIONS, pace: Pace::Closed };
        let run = fire_with_bar(load, "clicks", &Arc::default()).await?;
        let known = ["202", "409 sold_out", "409 already_purchased", "429 rate_limited"];
        let others = run.total() - known.iter().map(|reply| run.count(reply)).sum::<u64>();
        if others > 0 {
            return Err(format!("{others} clicks were answered otherwise: {:?}", run.replies));
        }
        Ok(run)
    }

    /// All buyers pay who have not, but for one of each `but`. How many did.
    async fn pay(&self, product: ProductId, but: usize) -> Result<u64, String> {
        let unpaid = self.unpaid(product).await?;
        let paying = unpaid.iter().enumerate().filter(|(number, _)| (number + 1) % but != 0);
        let paying = futures_util::stream::iter(paying).map(|(_, (order, user))| self.api.pay(*user, *order));
        let paid: Vec<()> = paying.buffer_unordered(PAYING).try_collect().await?;
        Ok(paid.len() as u64)
    }

    async fn unpaid(&self, product: ProductId) -> Result<Vec<(OrderId, i64)>, String> {
        let unpaid = self.db.read(move |conn| Box::pin(ledger::unpaid(conn, product))).await;
        unpaid.map_err(|error: DbError| format!("reading orders: {error}"))
    }

    /// Waits until the units of what nobody has paid can be bought. How many can, and how long after the last deadline.
    async fn wait_for_units(&self, product: ProductId) -> Result<(u64, Duration), String> {
        let unpaid = self.unpaid(product).await?;
        let Some(last) = unpaid.iter().map(|(order, _)| order.drawn_at()).max() else { return Ok((0, Duration::ZERO)) };
        let deadline = last.after(Duration::from_secs(self.window));
        loop {
            let remaining = self.api.remaining(product).await?.unsigned_abs();
            let late = Timestamp::now().since(deadline);
            if remaining >= unpaid.len() as u64 {
                return Ok((remaining, late));
            }
            if late > PATIENCE {
                let (orders, late) = (unpaid.len(), late.as_secs());
                return Err(format!(
                    "PROOF FAILED: {orders} orders were not paid, {remaining} units are back {late} s after the last deadline"
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn money(&self, product: ProductId) -> Result<Money, String> {
        let counted = self.db.read(move |conn| Box::pin(ledger::count_money(conn, product))).await;
        counted.map_err(|error: DbError| format!("counting money: {error}"))
    }
}

fn show_clicks(run: &Run, stock: usize) {
    show([
        ("clicks", run.total().to_string()),
        ("clicks a second", format!("{:.0}", run.per_second())),
        ("answered within", format!("{:.1} ms (99 of 100)", run.percentile_ms(99.0))),
        ("stock", stock.to_string()),
        ("accepted (202)", run.count("202").to_string()),
        ("refused, sold out", run.count("409 sold_out").to_string()),
        ("refused, already purchased", run.count("409 already_purchased").to_string()),
        ("refused, too soon again", run.count("429 rate_limited").to_string()),
    ]);
}

fn show<const ROWS: usize>(rows: [(&str, String); ROWS]) {
    for (name, value) in rows {
        say!("  {name:28}{value:>12}");
    }
}

fn in_money(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// The books: every unit is paid or left, every paid unit has its price, and what was not paid is gone.
fn check(stock: i64, left: i64, paid: i64, unpaid: i64, money: &Money) -> Result<(), String> {
    let books = [
        ("stock = paid + left", stock, money.paid + left),
        ("paid orders = buyers who paid", money.paid, paid),
        ("paid orders = payments", money.paid, money.payments),
        ("money = paid x price", money.kept_cents, money.asked_cents),
        ("expired = buyers who never paid", money.expired, unpaid),
        ("unpaid", money.unpaid, 0),
    ];
    let wrong: Vec<String> = books
        .iter()
        .filter(|(_, one, other)| one != other)
        .map(|(name, one, other)| format!("{name}: {one} and {other}"))
        .collect();
    if wrong.is_empty() {
        say!("Proved from the database: stock = paid + left, money = paid x price.");
        return Ok(());
    }
    Err(format!("PROOF FAILED: {}", wrong.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_that_do_not_add_up_are_named() {
        let money = Money { unpaid: 0, expired: 1, paid: 9, asked_cents: 900, kept_cents: 900, payments: 9 };
        assert!(check(10, 1, 9, 1, &money).is_ok());
        for (wrong, name) in [
            (check(10, 0, 9, 1, &money), "stock"),
            (check(10, 1, 8, 1, &money), "buyers who paid"),
            (check(10, 1, 9, 0, &money), "expired"),
            (check(10, 1, 9, 1, &Money { kept_cents: 800, ..money }), "money"),
            (check(10, 1, 9, 1, &Money { payments: 8, ..money }), "payments"),
            (check(10, 1, 9, 1, &Money { unpaid: 1, ..money }), "unpaid"),
        ] {
            assert!(wrong.is_err_and(|problem| problem.contains(name)), "{name}");
        }
    }
}
