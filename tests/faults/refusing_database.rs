//! A database that is up and refuses: read-only, full, out of connections or statements, without rights, killed
//! connections, held locks. Purchases go on being promised meanwhile; each promise becomes an order once it is over, and no
//! message is given up.

use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection;
use seckill::config::{Backend, Config};
use secrecy::ExposeSecret;
use url::Url;

use crate::client::Client;
use crate::crowd::{Crowd, Plan, Sale};
use crate::daemon::Daemon;
use crate::link::{self, Link};
use crate::server::Server;
use crate::support::eventually_within;
use crate::trial::Trial;

/// Long enough for all tries that an earlier version made before it gave a message up.
const LASTS: Duration = Duration::from_secs(5);
/// Purchases of the sale that a constraint refuses.
const REFUSED: i64 = 40;
const PLAN: Plan = Plan { lasting: Duration::from_secs(8), ..Plan::rush(600, 800) };

/// Sells to a crowd at a MariaDB of its own, started with `arguments`, that is harmed in the middle.
async fn sell_through(fault: &str, arguments: &[&str], plan: Plan, harm: impl AsyncFn(&mut Daemon, &Config)) {
    let mut trial = Trial::begin(fault, Backend::Distributed).await;
    let mut mariadb = Daemon::start_with(Link::MariaDb, &mut trial.config, arguments).await;
    let server = Server::start(&trial.config).await;
    let crowd = trial.open_sale(&[&server], plan).await;
    crowd.sold(20).await;
    harm(&mut mariadb, &trial.config).await;
    trial.injected += 1;
    let sale = trial.judge(crowd).await;
    expect_no_letters(&mut trial, &sale.client).await;
    trial.finish(vec![server]).await;
}

async fn expect_no_letters(trial: &mut Trial, client: &Client) {
    // The queue is asked for its letters every few seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let letters = client.metric("seckill_dead_letters").await;
    if letters != Some(0.0) {
        trial.problem(format!("dead letters: {letters:?}"));
    }
}

/// User and database of the program, quoted.
fn account(config: &Config) -> (String, String) {
    let url = Url::parse(config.mysql.dsn.expose_secret()).unwrap();
    (format!("'{}'@'127.0.0.1'", url.username()), url.path().trim_start_matches('/').to_owned())
}

async fn between(mariadb: &Daemon, harm: &str, heal: &str) {
    mariadb.operate(harm).await;
    tokio::time::sleep(LASTS).await;
    mariadb.operate(heal).await;
}

/// A constraint that somebody has added. Guards against: each refused purchase is tried several times in a row, and meanwhile no
/// other sale's orders are written and no other sale opens again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_constraint_that_refuses_one_sale_keeps_no_other_waiting() {
    let mut trial = Trial::begin("MariaDB: a constraint, Redis emptied", Backend::Distributed).await;
    let mariadb = Daemon::start(Link::MariaDb, &mut trial.config).await;
    // Sales are spread over the consumers: this is about two at the same one.
    let server = Server::start_with(&trial.config, &[("SECKILL__RABBITMQ__CONSUMERS", "1".to_owned())]).await;
    let (_, database) = account(&trial.config);
    let client = Client::new(&trial.config, vec![server.url()]);
    let product = client.new_product(REFUSED).await;
    let alter = |change: &str| format!("ALTER TABLE {database}.orders {change}");
    mariadb.operate(&alter(&format!("ADD CONSTRAINT refuse CHECK (product_id <> {product})"))).await;
    // One by one, so that each comes in a message of its own.
    let plan = Plan { lasting: Duration::from_secs(2), ..Plan::rush(REFUSED, REFUSED) };
    let refused = Crowd::gather(&Sale::new(client, product, plan), plan, &mut trial.dice);
    refused.sold(100).await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    let other = trial.open_sale(&[&server], PLAN).await;
    eventually_within(8, "the other sale's orders are written", || async {
        other.sale.client.metric("seckill_orders_written_total").await.is_some_and(|written| written >= 100.0)
    })
    .await;
    link::empty_redis(&trial.config).await;
    trial.injected += 2;
    // What was taken before is answered by then.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let emptied = Instant::now();
    let limit = Duration::from_secs(10);
    trial.sold_again(other.sells_after(emptied, limit).await, limit);

    mariadb.operate(&alter("DROP CONSTRAINT refuse")).await;
    trial.judge(other).await;
    let sale = trial.judge(refused).await;
    expect_no_letters(&mut trial, &sale.client).await;
    trial.finish(vec![server]).await;
}

/// As a failover leaves the old primary. In the same minute Redis loses everything, so that the queue alone knows the
/// purchases. Guards against: messages parked because the database refused them (issue 14, 2: three of three lost).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_database_costs_no_promise_even_when_redis_is_emptied() {
    sell_through("MariaDB read-only, Redis emptied", &["--lc-messages=de_DE"], PLAN, async |mariadb, config| {
        mariadb.operate("SET GLOBAL read_only = 1").await;
        tokio::time::sleep(LASTS / 2).await;
        link::empty_redis(config).await;
        tokio::time::sleep(LASTS / 2).await;
        mariadb.operate("SET GLOBAL read_only = 0").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_right_costs_no_promise_in_any_language() {
    sell_through("MariaDB: INSERT revoked, in Russian", &["--lc-messages=ru_RU"], PLAN, async |mariadb, config| {
        let (user, database) = account(config);
        // Rights over a whole database are looked up when a connection begins.
        let name = Url::parse(config.mysql.dsn.expose_secret()).unwrap().username().to_owned();
        let revoke = format!("REVOKE INSERT ON {database}.* FROM {user}; KILL USER {name}");
        between(mariadb, &revoke, &format!("GRANT INSERT ON {database}.* TO {user}")).await;
    })
    .await;
}

/// Guards against: a round that is too large for `max_allowed_packet` and is tried for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_that_is_too_large_is_split() {
    // A backlog of 16 KiB and more gathers while the database cannot be written.
    let small = ["--max-allowed-packet=8192", "--net-buffer-length=8192"];
    sell_through("MariaDB: packets of 8 KiB at most", &small, Plan::rush(1500, 1600), async |mariadb, _| {
        between(mariadb, "SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn a_limit_that_is_lowered_meanwhile_splits_rounds_too() {
    sell_through("MariaDB: packets shrink to 4 KiB", &[], Plan::rush(1500, 1600), async |mariadb, config| {
        let name = Url::parse(config.mysql.dsn.expose_secret()).unwrap().username().to_owned();
        mariadb.operate("SET GLOBAL read_only = 1").await;
        tokio::time::sleep(LASTS / 2).await;
        mariadb.operate(&format!("SET GLOBAL max_allowed_packet = 4096; KILL USER {name}")).await;
        tokio::time::sleep(LASTS / 2).await;
        mariadb.operate("SET GLOBAL read_only = 0").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn no_room_for_prepared_statements_costs_no_promise() {
    sell_through("MariaDB: max_prepared_stmt_count = 0", &["--lc-messages=fr_FR"], PLAN, async |mariadb, _| {
        let count = |count| format!("SET GLOBAL max_prepared_stmt_count = {count}");
        between(mariadb, &count(0), &count(16_382)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn one_connection_for_all_costs_no_promise() {
    sell_through("MariaDB: one connection for the account", &[], PLAN, async |mariadb, config| {
        let (user, _) = account(config);
        let name = Url::parse(config.mysql.dsn.expose_secret()).unwrap().username().to_owned();
        let limit = |most| format!("ALTER USER {user} WITH MAX_USER_CONNECTIONS {most}");
        between(mariadb, &format!("{}; KILL USER {name}", limit(1)), &limit(0)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn killed_connections_cost_no_promise() {
    sell_through(
        "MariaDB: all connections killed, again and again",
        &["--lc-messages=ja_JP"],
        PLAN,
        async |mariadb, config| {
            let name = Url::parse(config.mysql.dsn.expose_secret()).unwrap().username().to_owned();
            let begun = Instant::now();
            while begun.elapsed() < LASTS {
                mariadb.operate(&format!("KILL USER {name}")).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                mariadb.operate(&format!("KILL QUERY USER {name}")).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn rows_and_tables_that_others_lock_cost_no_promise() {
    sell_through(
        "MariaDB: rows, then tables locked by others",
        &["--lc-messages=es_ES"],
        PLAN,
        async |mariadb, config| {
            let (_, database) = account(config);
            let mut other = mariadb.operator().await;
            other.batch_execute(&format!("BEGIN; SELECT id FROM {database}.products FOR UPDATE")).await.unwrap();
            tokio::time::sleep(LASTS).await;
            other.batch_execute("ROLLBACK; FLUSH TABLES WITH READ LOCK").await.unwrap();
            tokio::time::sleep(LASTS).await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn a_full_tablespace_costs_no_promise() {
    let small = ["--innodb-file-per-table=0", "--innodb-data-file-path=ibdata1:12M:autoextend:max:40M"];
    sell_through("MariaDB: the tablespace is full", &small, Plan::rush(3000, 3200), async |mariadb, config| {
        let (_, database) = account(config);
        let mut other = mariadb.operator().await;
        other.batch_execute(&format!("CREATE TABLE {database}.filler (f LONGBLOB) ENGINE = InnoDB")).await.unwrap();
        let fill = |bytes| format!("INSERT INTO {database}.filler SELECT REPEAT('x', {bytes}) FROM seq_1_to_20");
        for bytes in [100_000, 10_000, 7_000, 100] {
            while other.batch_execute(&fill(bytes)).await.is_ok() {}
        }
        tokio::time::sleep(LASTS).await;
        // Without any room not even a table can be dropped.
        mariadb.terminate().await;
        mariadb.arguments[1] = "--innodb-data-file-path=ibdata1:12M:autoextend:max:90M".to_owned();
        mariadb.restart().await;
    })
    .await;
}

/// Migrations under way, or a version that has not been migrated yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn a_table_that_is_away_for_a_moment_costs_no_promise() {
    sell_through("MariaDB: orders renamed and back", &["--lc-messages=pl_PL"], PLAN, async |mariadb, config| {
        let (_, database) = account(config);
        let rename = |from: &str, to: &str| format!("RENAME TABLE {database}.{from} TO {database}.{to}");
        between(mariadb, &rename("orders", "orders_"), &rename("orders_", "orders")).await;
    })
    .await;
}
