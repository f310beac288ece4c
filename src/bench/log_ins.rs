//! Log-ins beside a sale: more of them a second than the machine can hash passwords for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::{JoinHandle, JoinSet};

use super::generator::{ask, request};

pub(super) const PER_SECOND: u32 = 20;
pub(super) const BCRYPT_COST: u32 = 12;
/// How long the log-ins come before a sale begins: until every place to wait for a hash is taken, so that what comes during
/// the sale is beyond the bound.
const AHEAD: Duration = Duration::from_secs(3);
/// After it, the server is asked this often whether it has hashed what it was asked, and this long at most.
const ASK_AGAIN: Duration = Duration::from_millis(200);
const HASHED_WITHIN: Duration = Duration::from_secs(60);

/// How log-ins were answered.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct LogIns {
    /// By status. Who logs in is unknown here: hashing takes as long, and ends with a 401.
    pub(super) replies: BTreeMap<u16, u64>,
    /// The slowest of those that were turned away at once (429).
    pub(super) slowest_refusal_ms: f64,
}

impl LogIns {
    pub(super) fn add(&mut self, other: &Self) {
        for (status, count) in &other.replies {
            *self.replies.entry(*status).or_default() += count;
        }
        self.slowest_refusal_ms = self.slowest_refusal_ms.max(other.slowest_refusal_ms);
    }

    fn note(&mut self, status: u16, took: Duration) {
        *self.replies.entry(status).or_default() += 1;
        if status == 429 {
            self.slowest_refusal_ms = self.slowest_refusal_ms.max(took.as_secs_f64() * 1e3);
        }
    }
}

/// Log-ins that keep coming until this is dropped.
pub(super) struct LogInLoad {
    address: SocketAddr,
    sending: JoinHandle<()>,
    seen: Arc<Mutex<LogIns>>,
}

impl LogInLoad {
    /// Begins to send, and returns once every place to wait for a hash is taken.
    pub(super) async fn begin(address: SocketAddr) -> Self {
        let seen = Arc::<Mutex<LogIns>>::default();
        let sending = tokio::spawn(send(address, seen.clone()));
        tokio::time::sleep(AHEAD).await;
        Self { address, sending, seen }
    }

    /// Ends it, and returns once the server has answered all of it.
    pub(super) async fn end(self) -> LogIns {
        self.sending.abort();
        let last = request("POST", "/login", None, Some(&log_in(0)));
        let calm = async {
            // Its turn comes after everybody's who was there before.
            while !ask(self.address, &last).await.is_ok_and(|(status, _)| status == 401) {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        let _ = tokio::time::timeout(HASHED_WITHIN, calm).await;
        std::mem::take(&mut *self.seen.lock())
    }
}

impl Drop for LogInLoad {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

/// The body of one by somebody whom nobody knows.
fn log_in(number: u64) -> String {
    format!(r#"{{"username":"nobody{number}","password":"correct horse"}}"#)
}

async fn send(address: SocketAddr, seen: Arc<Mutex<LogIns>>) {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    let mut asked = JoinSet::new();
    for number in 0_u64.. {
        pace.tick().await;
        let request = request("POST", "/login", None, Some(&log_in(number)));
        let seen = seen.clone();
        asked.spawn(async move {
            let begun = Instant::now();
            if let Ok((status, _)) = ask(address, &request).await {
                seen.lock().note(status, begun.elapsed());
            }
        });
        while asked.try_join_next().is_some() {}
    }
}
