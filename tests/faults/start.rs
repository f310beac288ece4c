//! A start on a database that is not what it should be: one line that says so, at once, or a start that works.

use std::time::{Duration, Instant};

use diesel_async::{AsyncConnection, AsyncMysqlConnection, SimpleAsyncConnection};
use seckill::config::{Backend, Config};
use secrecy::ExposeSecret;
use url::Url;

use crate::crowd::Plan;
use crate::daemon::Daemon;
use crate::link::Link;
use crate::server::{self, Server};
use crate::support::Stores;
use crate::trial::Trial;

/// What is wrong with the settings is not waited for.
const AT_ONCE: Duration = Duration::from_secs(8);

/// The last line of a start that is refused. It must come at once.
pub async fn refused(config: &Config) -> String {
    let begun = Instant::now();
    let (status, said) = server::run(config).await;
    let line = said.lines().last().unwrap_or_default().to_owned();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(line.starts_with("seckill: "), "{said}");
    assert!(begun.elapsed() < AT_ONCE, "after {:?}: {line}", begun.elapsed());
    line
}

/// A folder in which a program has sold something.
async fn used_folder() -> (Stores, Config) {
    let stores = Stores::new(Backend::Embedded).await;
    let config = stores.config();
    let mut server = Server::start(&config).await;
    server.terminate().await;
    (stores, config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_its_journal_and_a_journal_without_its_database_are_refused() {
    let (stores, config) = used_folder().await;
    let (other_stores, other) = used_folder().await;
    let file = |config: &Config, name: &str| config.embedded.data_dir.join(name);
    let (journal, database) = (file(&config, "journal.db"), file(&config, "seckill.db"));

    std::fs::rename(&journal, file(&config, "away")).unwrap();
    let line = refused(&config).await;
    assert!(line.contains("journal.db is missing") && line.contains("--new-journal"), "{line}");

    std::fs::copy(file(&other, "journal.db"), &journal).unwrap();
    let line = refused(&config).await;
    assert!(line.contains("do not belong together"), "{line}");

    std::fs::rename(file(&config, "away"), &journal).unwrap();
    std::fs::rename(&database, file(&config, "away")).unwrap();
    let line = refused(&config).await;
    assert!(line.contains("seckill.db is missing"), "{line}");

    std::fs::rename(file(&config, "away"), &database).unwrap();
    Server::start(&config).await.terminate().await;
    std::fs::remove_file(&journal).unwrap();
    assert!(server::migrate(&config, &["--new-journal"]).await.success());
    Server::start(&config).await.terminate().await;
    stores.remove().await;
    other_stores.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_the_version_before_gets_its_numbers() {
    let (stores, config) = used_folder().await;
    for name in ["journal.db", "seckill.db"] {
        let file = config.embedded.data_dir.join(name);
        let mut conn = diesel::Connection::establish(file.to_str().unwrap()).unwrap();
        let conn: &mut diesel::SqliteConnection = &mut conn;
        diesel::connection::SimpleConnection::batch_execute(conn, "PRAGMA user_version = 0").unwrap();
    }
    Server::start(&config).await.terminate().await;
    std::fs::remove_file(config.embedded.data_dir.join("journal.db")).unwrap();
    assert!(refused(&config).await.contains("journal.db is missing"));
    stores.remove().await;
}

async fn a_newer_schema(backend: Backend) {
    let stores = Stores::new(backend).await;
    let config = stores.config();
    Server::start(&config).await.terminate().await;
    stores.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')").await;
    let line = refused(&config).await;
    assert!(line.contains("newer than this program") && line.contains("29990101000000"), "{line}");
    stores.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_refused_embedded() {
    a_newer_schema(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_refused_distributed() {
    a_newer_schema(Backend::Distributed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_lack_something_are_refused() {
    let stores = Stores::new(Backend::Distributed).await;
    let config = stores.config();
    Server::start(&config).await.terminate().await;
    stores.execute("ALTER TABLE products DROP COLUMN paused").await;
    let line = refused(&config).await;
    assert!(line.contains("mysql.dsn") && line.contains("table products") && line.contains("paused"), "{line}");
    stores.execute("DROP TABLE __diesel_schema_migrations").await;
    let line = refused(&config).await;
    assert!(line.contains("mysql.dsn") && line.contains("schema"), "{line}");
    stores.remove().await;
}

/// Guards against: half a minute of "does not answer yet", and "another instance has held the lock" (issue 14, 17).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_cannot_work_is_one_line_at_once() {
    let stores = Stores::new(Backend::Distributed).await;
    let config = stores.config();
    let dsn = Url::parse(config.mysql.dsn.expose_secret()).unwrap();
    let changed = |change: fn(&mut Url)| {
        let mut dsn = dsn.clone();
        change(&mut dsn);
        let mut config = config.clone();
        config.mysql.dsn = dsn.to_string().into();
        config
    };
    let log_in = "correct the user and the password in mysql.dsn";
    for (what, advice, change) in [
        ("denied", log_in, (|dsn| dsn.set_password(Some("hunter2")).unwrap()) as fn(&mut Url)),
        ("denied", log_in, |dsn| dsn.set_username("nobody").unwrap()),
        ("names no database", "/DATABASE", |dsn| dsn.set_path("/")),
        ("nonesuch", "the database's name at the end of mysql.dsn", |dsn| dsn.set_path("/nonesuch")),
        ("sslmode", "", |dsn| dsn.set_query(Some("sslmode=require"))),
        ("tcp_nodelay", "", |dsn| dsn.set_query(Some("tcp_nodelay=perhaps"))),
    ] {
        let line = refused(&changed(change)).await;
        assert!(line.contains("mysql.dsn") && line.contains(what) && line.contains(advice), "{what}: {line}");
        assert!(!line.contains("hunter2") && !line.contains(dsn.password().unwrap()), "a secret: {line}");
    }
    stores.remove().await;
}

/// An account with no rights but those over rows serves once another one has made the tables.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_may_only_change_rows_serves() {
    let mut trial = Trial::begin("MariaDB: an account for rows only", Backend::Distributed).await;
    let mariadb = Daemon::start(Link::MariaDb, &mut trial.config).await;
    let dsn = Url::parse(trial.config.mysql.dsn.expose_secret()).unwrap();
    let database = dsn.path().trim_start_matches('/');
    let grant = format!(
        "CREATE USER clerk@'127.0.0.1' IDENTIFIED BY 'clerk'; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO clerk@'127.0.0.1'"
    );
    mariadb.operate(&grant).await;
    let mut rows_only = dsn.clone();
    rows_only.set_username("clerk").unwrap();
    rows_only.set_password(Some("clerk")).unwrap();
    let owner = std::mem::replace(&mut trial.config.mysql.dsn, rows_only.to_string().into());

    let line = refused(&trial.config).await;
    assert!(line.contains("mysql.dsn") && line.contains("seckill migrate"), "{line}");

    let mut as_owner = trial.config.clone();
    as_owner.mysql.dsn = owner;
    assert!(server::migrate(&as_owner, &[]).await.success());
    // The migrations are not the account's to change, either.
    let mut conn = AsyncMysqlConnection::establish(rows_only.as_str()).await.unwrap();
    assert!(conn.batch_execute("CREATE TABLE mine (n INT)").await.is_err());
    let server = Server::start(&trial.config).await;
    let crowd = trial.open_sale(&[&server], Plan::rush(50, 60)).await;
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}
