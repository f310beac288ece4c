//! `seckill bench --deadlines`: what it costs a sale that the orders of another one are not paid, and how soon their units are back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::generator::{Load, Pace, fire};
use super::measures::{open_db, target_api};
use super::own_stores::{Known, OwnStores};
use super::proof::Proof;
use super::report::median;
use super::sale::expect_only;
use super::server::{Server, migrate, this_program};
use super::target::{TargetApi, fire_with_bar};
use crate::config::Config;
use crate::model::{ProductId, Timestamp};

/// The sale that is measured.
const PURCHASES: usize = 300_000;
const CONNECTIONS: usize = 256;
/// Orders whose deadlines are over while it runs, one after the other.
const FALL_DUE: usize = 30_000;
const A_SECOND: usize = 1_000;
/// Orders whose deadlines are over at one instant.
const AT_ONCE: usize = 100_000;
/// They had so long.
const WINDOW: Duration = Duration::from_secs(900);
/// The server starts and the buyers get their tokens in this time.
const PREPARED_IN: Duration = Duration::from_secs(25);
/// Units must be back by then.
const PATIENCE: Duration = Duration::from_secs(120);
const ROUNDS: usize = 3;
/// As many orders are written together in life.
const WRITTEN_TOGETHER: usize = 1_000;
/// The product of those orders.
const NOT_PAID: i64 = 1;

/// When orders fall due.
#[derive(Clone, Copy)]
enum Due {
    Never,
    OneAfterTheOther,
    AtOnce,
}

struct Figures {
    per_second: f64,
    /// How long after its time the unit that was last to come back was there.
    latest: Duration,
}

pub(super) async fn run(config: &Config, file: Option<&Path>) -> Result<(), String> {
    let (mut without, mut with, mut latest) = (Vec::new(), Vec::new(), Duration::ZERO);
    for round in 1..=ROUNDS {
        // In turn, so that a machine whose speed drifts disturbs both alike.
        let order =
            if round % 2 == 1 { [Due::Never, Due::OneAfterTheOther] } else { [Due::OneAfterTheOther, Due::Never] };
        for due in order {
            let figures = lend(config, file, due, round).await?;
            match due {
                Due::Never => without.push(figures.per_second),
                _ => {
                    with.push(figures.per_second);
                    latest = latest.max(figures.latest);
                }
            }
        }
    }
    let (without, with) = (median(without).unwrap_or(0.0), median(with).unwrap_or(0.0));
    say!("purchases/s, no order falls due              {without:>9.0}");
    say!("purchases/s, {A_SECOND} orders fall due a second    {with:>9.0}   ratio {:.2}", with / without);
    say!("a unit is back on sale after its time within {:>9.1} s", latest.as_secs_f64());
    let figures = lend(config, file, Due::AtOnce, ROUNDS + 1).await?;
    say!("{AT_ONCE} due at one instant, all back within {:>9.1} s", figures.latest.as_secs_f64());
    Ok(())
}

async fn lend(config: &Config, file: Option<&Path>, due: Due, round: usize) -> Result<Figures, String> {
    OwnStores::lend(config, Known::ByThisBuild, async |stores: &OwnStores| measure(stores, file, due, round).await)
        .await
}

async fn measure(stores: &OwnStores, file: Option<&Path>, due: Due, round: usize) -> Result<Figures, String> {
    let config = &stores.config;
    migrate(file, &stores.settings).await?;
    let first_due = Timestamp::now().after(PREPARED_IN);
    let (orders, apart_us) = match due {
        Due::Never | Due::OneAfterTheOther => (FALL_DUE, 1_000_000 / A_SECOND),
        Due::AtOnce => (AT_ONCE, 0),
    };
    let window = if let Due::Never = due { None } else { Some(WINDOW) };
    fill(stores, orders, first_due, apart_us, window).await?;
    let server = Server::start(&this_program()?, Path::new("."), file, &stores.settings).await?;
    let api = target_api(server.address, config);
    let product = api.new_product(PURCHASES).await?;
    let requests = api.clicks(product, 0, PURCHASES)?;
    wait_for_gate(&api).await?;
    let now = Timestamp::now();
    if now > first_due {
        return Err("the first deadlines were over before all was prepared; is the machine busy?".to_owned());
    }
    tokio::time::sleep(first_due.since(now)).await;

    let mut figures = Figures { per_second: 0.0, latest: Duration::ZERO };
    if let Due::Never | Due::OneAfterTheOther = due {
        let (addresses, count) = (vec![server.address], requests.len());
        let load = Load { addresses, requests, count, connections: CONNECTIONS, pace: Pace::Closed };
        let (title, answered) = (format!("round {round}"), Arc::default());
        let buying = fire_with_bar(load, &title, &answered);
        let (run, latest) = tokio::join!(buying, watch(&api, due, first_due, orders));
        let run = run?;
        expect_only(&run, "202", count)?;
        Proof::wait(&open_db(config), product, count as u64, |_| ()).await?.check()?;
        figures = Figures { per_second: run.per_second(), latest: latest? };
    } else {
        figures.latest = watch(&api, due, first_due, orders).await?;
    }
    server.end().await;
    Ok(figures)
}

/// Until all units are back: how long after its time the latest was.
async fn watch(api: &TargetApi, due: Due, first_due: Timestamp, orders: usize) -> Result<Duration, String> {
    if let Due::Never = due {
        return Ok(Duration::ZERO);
    }
    let mut latest = Duration::ZERO;
    loop {
        let asked = Timestamp::now().since(first_due);
        let back = api.remaining(not_paid()?).await?.unsigned_abs() as usize;
        // When the first of those that are not back yet was due.
        let due_after = match due {
            Due::OneAfterTheOther => Duration::from_secs_f64(back as f64 / A_SECOND as f64),
            Due::Never | Due::AtOnce => Duration::ZERO,
        };
        if back >= orders {
            return Ok(latest);
        }
        latest = latest.max(asked.saturating_sub(due_after));
        if latest > PATIENCE {
            return Err(format!("{back} of {orders} units are back {latest:?} after their time"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn not_paid() -> Result<ProductId, String> {
    NOT_PAID.try_into().map_err(str::to_owned)
}

/// The gate of the orders that fall due was never opened: somebody asks for it, and it is made from the database.
async fn wait_for_gate(api: &TargetApi) -> Result<(), String> {
    let clicks = api.clicks(not_paid()?, PURCHASES, 1)?;
    for _ in 0..200 {
        let load = Load {
            addresses: vec![api.address()],
            requests: clicks.clone(),
            count: 1,
            connections: 1,
            pace: Pace::Closed,
        };
        let run = fire(load, Arc::default()).await.map_err(|error| error.to_string())?;
        if run.count("409 sold_out") == 1 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("the gate of the orders that fall due does not open".to_owned())
}

/// Puts orders into the table that nobody pays, and the notes of their deadlines, as a sale would have.
async fn fill(
    stores: &OwnStores,
    orders: usize,
    first_due: Timestamp,
    apart_us: usize,
    window: Option<Duration>,
) -> Result<(), String> {
    let made = text(Timestamp::now());
    let first_ms = first_due.before(WINDOW).unix_ms();
    let window_sql = window.map_or("NULL".to_owned(), |window| window.as_secs().to_string());
    stores
        .execute(&format!(
            "INSERT INTO products (id, name, description, price_cents, stock, sold, starts_at, gate_home, created_at, payment_window_seconds) \
             VALUES ({NOT_PAID}, 'Not paid', '', 19900, {orders}, {orders}, '2026-01-01 00:00:00.000', '', '{made}', {window_sql})"
        ))
        .await?;
    stores
        .execute(&format!(
            "INSERT INTO product_revisions (product_id, revision, name, price_cents, created_at, payment_window_seconds) \
             VALUES ({NOT_PAID}, 1, 'Not paid', 19900, '{made}', {window_sql})"
        ))
        .await?;
    let id = |number: usize| {
        let ms = first_ms + (number * apart_us / 1_000) as i64;
        // They ascend, as those of one write batch do between its first and its last.
        format!("x'{ms:012x}70008{number:015x}'")
    };
    for first in (0..orders).step_by(WRITTEN_TOGETHER) {
        let numbers = first..(first + WRITTEN_TOGETHER).min(orders);
        let (from, to) = (id(numbers.start), id(numbers.end - 1));
        let rows: Vec<String> = numbers
            .map(|number| {
                format!(
                    "({}, {NOT_PAID}, {user}, {user}, 'unpaid', 19900, '{made}', '{made}', 1)",
                    id(number),
                    user = 1_000 + number
                )
            })
            .collect();
        stores
            .execute(&format!(
                "INSERT INTO orders (id, product_id, user_id, live_user, status, price_cents, created_at, updated_at, revision) VALUES {}",
                rows.join(", ")
            ))
            .await?;
        if window.is_some() {
            let due = text(first_due.after(Duration::from_micros((first * apart_us) as u64)));
            stores
                .execute(&format!(
                    "INSERT INTO payment_deadlines (first_order, last_order, due_at) VALUES ({from}, {to}, '{due}')"
                ))
                .await?;
        }
    }
    Ok(())
}

/// As both databases write it.
fn text(time: Timestamp) -> String {
    let mut text = String::with_capacity(Timestamp::SORTABLE_LENGTH);
    time.push_sortable(&mut text);
    text
}
