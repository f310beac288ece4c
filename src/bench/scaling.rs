//! `seckill bench --scaling`: what a purchase costs as the work grows, one dimension at a time.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::generator::{Load, Pace};
use super::measures::{open_db, target_api};
use super::own_stores::{Known, OwnStores};
use super::proof::Proof;
use super::sale::expect_only;
use super::server::{Server, migrate, this_program};
use super::target::fire_with_bar;
use crate::config::{Backend, Config};

/// Purchases of a line at least.
const PURCHASES: usize = 100_000;
/// What a line has where it does not say otherwise.
const USUAL: Case = Case { buyers: PURCHASES, sales: 1, connections: 256, instances: 1, orders: 0 };
const BUYERS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
const SALES: [usize; 4] = [1, 16, 100, 10_000];
const CONNECTIONS: [usize; 4] = [64, 256, 1_000, 10_000];
const INSTANCES: [usize; 3] = [1, 2, 4];
const ORDERS: [usize; 3] = [0, 1_000_000, 5_000_000];
/// Orders that are put into the table in one statement, and how far apart their users are: all over the ids that buyers
/// have.
const ORDERS_A_STATEMENT: usize = 100_000;
const USERS_APART: usize = 800;
/// The last orders are written, and the gate is told of them, within this time after the last sale's.
const SETTLED: Duration = Duration::from_millis(500);

/// One line.
#[derive(Clone, Copy)]
struct Case {
    /// Of each sale, which has as many units.
    buyers: usize,
    /// Sales that run at once; if they have few buyers, one lot of them after the other.
    sales: usize,
    connections: usize,
    instances: usize,
    /// In the table beforehand.
    orders: usize,
}

struct Figures {
    per_second: f64,
    /// From the first click until the orders of the last sale were written.
    written_per_second: f64,
    /// CPU time of the instances a purchase.
    cpu_us: f64,
    /// Peak of the instances together.
    memory_mib: f64,
    redis_bytes: Option<f64>,
}

pub(super) async fn run(config: &Config, file: Option<&Path>) -> Result<(), String> {
    let distributed = config.backend == Backend::Distributed;
    let mut lines = Vec::new();
    let buyers = BUYERS.map(|buyers| ("buyers of a sale", buyers, Case { buyers, ..USUAL }));
    let sales = SALES.map(|sales| ("sales at once", sales, Case { sales, buyers: PURCHASES / sales, ..USUAL }));
    let connections = CONNECTIONS.map(|connections| ("connections", connections, Case { connections, ..USUAL }));
    let instances = INSTANCES.map(|instances| ("instances", instances, Case { instances, ..USUAL }));
    let orders = ORDERS.map(|orders| ("orders in the table", orders, Case { orders, ..USUAL }));
    lines.extend(buyers.into_iter().chain(sales).chain(connections));
    lines.extend(instances.into_iter().filter(|_| distributed));
    lines.extend(orders);

    say!("| {:<19} | {:>9} | purchases/s | written/s | server CPU us | memory MiB | Redis B/buyer |", "", "");
    say!("|:{:-<19}-|{:->10}:|------------:|----------:|--------------:|-----------:|--------------:|", "", "");
    for (what, size, case) in lines {
        let title = format!("{what}: {size}");
        let measuring = async |stores: &OwnStores| measure(stores, file, case, &title).await;
        let measured = OwnStores::lend(config, Known::ByThisBuild, measuring).await?;
        let Figures { per_second, written_per_second, cpu_us, memory_mib, redis_bytes } = measured;
        let redis_bytes = redis_bytes.map_or("-".to_owned(), |bytes| format!("{bytes:.0}"));
        say!(
            "| {what:<19} | {size:>9} | {per_second:>11.0} | {written_per_second:>9.0} | {cpu_us:>13.1} | \
             {memory_mib:>10.0} | {redis_bytes:>13} |"
        );
    }
    Ok(())
}

async fn measure(stores: &OwnStores, file: Option<&Path>, case: Case, title: &str) -> Result<Figures, String> {
    let config = &stores.config;
    migrate(file, &stores.settings).await?;
    fill(stores, case.orders, title).await?;
    let mut servers = Vec::new();
    for _ in 0..case.instances {
        servers.push(Server::start(&this_program()?, Path::new("."), file, &stores.settings).await?);
    }
    let api = target_api(servers[0].address, config);

    let at_once = case.sales * case.buyers;
    let lots = PURCHASES.div_ceil(at_once);
    let (mut products, mut requests) = (Vec::new(), Vec::new());
    for _ in 0..lots {
        let mut crowds = Vec::new();
        for sale in 0..case.sales {
            let product = api.new_product(case.buyers).await?;
            crowds.push(api.clicks(product, sale * case.buyers, case.buyers)?.into_iter());
            products.push(product);
        }
        for turn in 0..at_once {
            requests.extend(crowds[turn % case.sales].next());
        }
    }

    let count = requests.len();
    let usage = || servers.iter().map(Server::usage);
    let cpu = || usage().map(|usage| usage.cpu).sum::<Duration>();
    let (cpu_before, redis_before) = (cpu(), stores.redis_memory().await?);
    let addresses = servers.iter().map(|server| server.address).collect();
    let load = Load { addresses, requests, count, connections: case.connections, pace: Pace::Closed };
    let begun = Instant::now();
    let run = fire_with_bar(load, title, &Arc::default()).await?;
    expect_only(&run, "202", count)?;
    let db = open_db(config);
    let prove = async |product| Proof::wait(&db, product, case.buyers as u64, |_| ()).await?.check();
    if let Some(last) = products.last() {
        prove(*last).await?;
    }
    let written_in = begun.elapsed();
    tokio::time::sleep(SETTLED).await;
    // Before ten thousand sales are looked at one by one.
    let cpu_after = cpu();
    for product in products {
        prove(product).await?;
    }
    let redis_bytes = match (redis_before, stores.redis_memory().await?) {
        (Some(before), Some(after)) => Some((after as f64 - before as f64) / count as f64),
        _ => None,
    };
    let figures = Figures {
        per_second: run.per_second(),
        written_per_second: count as f64 / written_in.as_secs_f64(),
        cpu_us: (cpu_after - cpu_before).as_secs_f64() * 1e6 / count as f64,
        memory_mib: usage().map(|usage| usage.peak_memory_kib as f64 / 1024.0).sum(),
        redis_bytes,
    };
    for server in servers {
        server.end().await;
    }
    Ok(figures)
}

/// Puts orders of a sale long over into the table.
async fn fill(stores: &OwnStores, orders: usize, title: &str) -> Result<(), String> {
    if orders == 0 {
        return Ok(());
    }
    let product = format!(
        "INSERT INTO products (id, name, description, price_cents, stock, sold, starts_at, ends_at, gate_home, created_at) \
         VALUES (1, 'Long over', '', 19900, {orders}, {orders}, '2026-01-01 00:00:00.000', '2026-01-02 00:00:00.000', \
         '', '2026-01-01 00:00:00.000')"
    );
    stores.execute(&product).await?;
    // A UUIDv7 of a number's own.
    let id = match stores.config.backend {
        Backend::Embedded => "unhex(printf('%012x7%03x8%015x', 1767225600000 + i, i % 4096, i))",
        Backend::Distributed => {
            "UNHEX(CONCAT(LPAD(HEX(1767225600000 + i), 12, '0'), '7', LPAD(HEX(i % 4096), 3, '0'), '8', \
             LPAD(HEX(i), 15, '0')))"
        }
    };
    let bar = ProgressBar::new(orders as u64).with_message(title.to_owned());
    for first in (0..orders).step_by(ORDERS_A_STATEMENT) {
        let insert = format!(
            "INSERT INTO orders (id, product_id, user_id, live_user, status, price_cents, created_at, updated_at) \
             WITH digits AS (SELECT 0 AS n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 \
                 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9), \
             numbers AS (SELECT {first} + a.n * 10000 + b.n * 1000 + c.n * 100 + d.n * 10 + e.n AS i \
                 FROM digits a, digits b, digits c, digits d, digits e) \
             SELECT {id}, 1, 1 + i * {USERS_APART}, 1 + i * {USERS_APART}, 'unpaid', 19900, \
                 '2026-01-01 00:00:00.000', '2026-01-01 00:00:00.000' FROM numbers ORDER BY i"
        );
        stores.execute(&insert).await?;
        bar.inc(ORDERS_A_STATEMENT as u64);
    }
    bar.finish_and_clear();
    Ok(())
}
