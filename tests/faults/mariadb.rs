//! Faults of MariaDB itself.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use seckill::config::Backend;
use seckill::db::{Db, DbError};
use seckill::model::Username;

use crate::crowd::Plan;
use crate::daemon::Daemon;
use crate::link::Link;
use crate::proxy::{Proxy, Wire};
use crate::server::Server;
use crate::support::Stores;
use crate::trial::Trial;

/// Harms MariaDB a few times in the middle of a sale. The queue takes what is sold meanwhile, so that a sale needs not
/// pause at all.
async fn lose_the_database(fault: &str, harm: impl AsyncFn(&mut Daemon) -> Instant) {
    let mut trial = Trial::begin(fault, Backend::Distributed).await;
    let mut mariadb = Daemon::start(Link::MariaDb, &mut trial.config).await;
    let server = Server::start(&trial.config).await;
    let plan = Plan { lasting: Duration::from_secs(10), ..Plan::rush(900, 1200) };
    let crowd = trial.open_sale(&[&server], plan).await;
    for round in 1..=3 {
        crowd.sold(trial.dice.among(round * 25 - 20..round * 25)).await;
        harm(&mut mariadb).await;
        trial.injected += 1;
    }
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

/// Guards against: an acknowledgement before the commit, or after an error (peers 10), half of a transaction (peers 12),
/// a commit whose result is unknown and that is done again (peers 11), a consumer that gives up (peers 15).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn survives_a_kill() {
    lose_the_database("MariaDB killed -9 and started", async |mariadb| {
        mariadb.kill().await;
        mariadb.restart().await
    })
    .await;
}

/// Guards against: a transaction that timed out and was committed (peers 11), messages that are parked because the
/// database was slow (peers 14).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn survives_being_frozen() {
    lose_the_database("MariaDB frozen for 5 s", async |mariadb| mariadb.freeze(Duration::from_secs(5)).await).await;
}

/// Guards against: trying one idle connection after another to a server that hangs, two seconds each, while somebody waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_is_given_up_soon_however_many_connections_are_idle() {
    let stores = Stores::new(Backend::Distributed).await;
    let mut config = stores.config();
    let proxy = Proxy::before(Link::MariaDb, &mut config).await;
    Db::migrate_mysql(&config.mysql).await.unwrap();
    let db = Db::mysql(&config.mysql);
    let read = async |pause: Duration| {
        let name = Username::parse("nobody").unwrap();
        db.read::<_, DbError, _>(move |conn| {
            Box::pin(async move {
                tokio::time::sleep(pause).await;
                conn.find_user_by_name(&name).await
            })
        })
        .await
    };
    for read in join_all((0..8).map(|_| read(Duration::from_millis(300)))).await {
        read.unwrap();
    }
    assert!(db.pool_use().idle >= 8, "{}", db.pool_use().idle);
    proxy.set(Wire::HalfOpen);
    let begun = Instant::now();
    let failed = read(Duration::ZERO).await;
    let took = begun.elapsed();
    assert!(matches!(failed, Err(DbError::Unreachable(_))), "{failed:?}");
    assert!(took < Duration::from_secs(6), "{took:?}");
    proxy.set(Wire::Good);
    read(Duration::ZERO).await.unwrap();
}
