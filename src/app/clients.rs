//! The clients of the stores, of the backend that was chosen, and what is done with them from the command line.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::error::StartError;
use crate::config::{self, Backend, Config};
use crate::data_dir::{DataDir, JWT_SECRET, random_key};
use crate::db::{Db, DbError, ErrorClass, Pairing};
use crate::queue::OrderQueue;
use crate::services::{Membership, Replay};
use crate::stock::{GateError, StockGate};
use crate::telemetry::{Metrics, Outage};

/// A database that starts together with us is waited for this long.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);

/// What keeps, admits and carries.
pub(super) struct Clients {
    pub(super) db: Db,
    pub(super) gate: Arc<StockGate>,
    pub(super) queue: Arc<OrderQueue>,
    /// Held as long as the process uses it.
    pub(super) data_dir: Option<DataDir>,
}

impl Clients {
    /// Opens those of the backend that was chosen: the one place that knows both. Embedded, a token's key that is not
    /// configured is made.
    pub(super) async fn open(config: &mut Config, cores: usize) -> Result<Self, StartError> {
        let (db, gate, queue, data_dir) = match config.backend {
            Backend::Embedded => {
                let data_dir = DataDir::lock(&config.embedded.data_dir)?;
                introduce(config);
                if config.auth.jwt_secret.expose_secret().is_empty() {
                    config.auth.jwt_secret = data_dir.secret(JWT_SECRET, config::check_jwt_secret, random_key)?;
                }
                migrate_file(&data_dir).await?;
                let queue = OrderQueue::embedded(&data_dir.journal())?;
                (Db::sqlite(&data_dir.database()), StockGate::memory(), queue, Some(data_dir))
            }
            Backend::Distributed => {
                introduce(config);
                migrate_server(config).await?;
                let gate = StockGate::redis(&config.redis, cores)?;
                (Db::mysql(&config.mysql), gate, OrderQueue::rabbitmq(&config.rabbitmq)?, None)
            }
        };
        match gate.servers().await {
            Ok(_) => {}
            Err(GateError::Misconfigured(problem)) => return Err(StartError(problem)),
            // The gate has said so itself.
            Err(error) => tracing::debug!(%error, "Starting without the gate; purchases are refused until it is back"),
        }
        Ok(Self { db, gate: Arc::new(gate), queue: Arc::new(queue), data_dir })
    }
}

/// The first line of the log: what runs, and on what. No secrets.
fn introduce(config: &Config) {
    let version = env!("CARGO_PKG_VERSION");
    match config.backend {
        Backend::Embedded => {
            let data_dir = std::path::absolute(&config.embedded.data_dir);
            let data_dir = data_dir.as_deref().unwrap_or(&config.embedded.data_dir).display();
            tracing::info!(%version, backend = "embedded", %data_dir, "Starting seckill");
        }
        Backend::Distributed => {
            let (mysql, redis, rabbitmq) = config.servers();
            tracing::info!(%version, backend = "distributed", %mysql, %redis, %rabbitmq, "Starting seckill");
        }
    }
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
}

/// Brings the schema up to date. `new_journal`: goes on without what the journal of the embedded backend holds.
pub async fn migrate(config: &Config, new_journal: bool) -> Result<(), StartError> {
    match config.backend {
        Backend::Embedded => {
            let data_dir = DataDir::lock(&config.embedded.data_dir)?;
            if !new_journal {
                return migrate_file(&data_dir).await;
            }
            let (pairing, moved) = Pairing::renew(&data_dir.database(), &data_dir.journal())?;
            if let Some(moved) = moved {
                tracing::warn!(journal = %moved.display(), "Moved the journal away: what it holds does not become orders");
            }
            migrate_paired(&data_dir, pairing).await
        }
        Backend::Distributed if new_journal => {
            Err(StartError("--new-journal is for the embedded backend, which has one".to_owned()))
        }
        Backend::Distributed => migrate_server(config).await,
    }
}

async fn migrate_file(data_dir: &DataDir) -> Result<(), StartError> {
    migrate_paired(data_dir, Pairing::check(&data_dir.database(), &data_dir.journal())?).await
}

async fn migrate_paired(data_dir: &DataDir, pairing: Pairing) -> Result<(), StartError> {
    Db::migrate_sqlite(&data_dir.database()).await.map_err(|error| StartError(format!("database: {error}")))?;
    Ok(pairing.seal()?)
}

async fn migrate_server(config: &Config) -> Result<(), StartError> {
    let begun = tokio::time::Instant::now();
    let mut outage = Outage::new(
        "The database cannot be used yet; the start waits for it, 30 seconds at most",
        "The database can be used",
    );
    loop {
        match Db::migrate_mysql(&config.mysql).await {
            Err(error) if is_starting(&error) && begun.elapsed() < DATABASE_PATIENCE => {
                outage.failed(error.class().as_str(), &error, error.advice());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(()) => {
                outage.ended();
                return Ok(());
            }
            Err(error) => return Err(StartError(database_problem(&error))),
        }
    }
}

/// Whether a database may be about to come up. Everything else is a mistake that does not go away by itself.
fn is_starting(error: &DbError) -> bool {
    matches!(error.class(), ErrorClass::Unreachable | ErrorClass::Lost | ErrorClass::TimedOut | ErrorClass::Overloaded)
}

/// One line that names the setting, without what is secret in it.
fn database_problem(error: &DbError) -> String {
    match error {
        DbError::Misconfigured(problem) => problem.clone(),
        DbError::Migration(problem) => format!("mysql.dsn: {problem}"),
        error => format!("mysql.dsn: {error}; {}", error.advice()),
    }
}

/// What puts dead letters back under the gate of now; `None` where there is no gate outside a server's process. Must be called
/// on a multi-threaded runtime.
pub fn replay(config: &Config) -> Result<Option<Replay>, StartError> {
    match config.backend {
        Backend::Embedded => Ok(None),
        Backend::Distributed => {
            let gate = StockGate::redis(&config.redis, 1)?;
            Ok(Some(Replay::new(Db::mysql(&config.mysql), Arc::new(gate))))
        }
    }
}

/// The deployment that a configuration leads to, for the command line. Must be called on a multi-threaded runtime.
pub fn membership(config: &Config) -> Result<Membership, StartError> {
    let queue = OrderQueue::rabbitmq(&config.rabbitmq)?;
    let gate = StockGate::redis(&config.redis, 1)?;
    let metrics = Arc::new(Metrics::new());
    Ok(Membership::new(Db::mysql(&config.mysql), gate.into(), queue.into(), metrics, config.redis.place()))
}
