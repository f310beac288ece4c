//! Those who are asked where the masters are: Sentinels, or the nodes of a cluster. Each may be dead, hang, or have been cut off
//! from the others and know less than they do.

use std::collections::HashMap;
use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{Client, Cmd, ErrorKind, FromRedisValue, RedisError};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::address::{Address, Login, timeouts};
use crate::stock::types::GateError;

/// Whoever has not answered by then is not waited for.
const PATIENCE: Duration = Duration::from_millis(250);
/// Once most have answered, the others have so long.
const AFTER_MOST: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct Informants {
    login: Login,
    open: Mutex<HashMap<Address, MultiplexedConnection>>,
}

/// What one of them answered.
pub(super) type Answer<T> = (Address, Result<T, Silence>);

/// Why one did not.
pub(super) enum Silence {
    /// It refuses.
    Refusal(RedisError),
    /// There is no connection to it.
    NoConnection(GateError),
}

impl Informants {
    pub(super) fn new(login: Login) -> Self {
        Self { login, open: Mutex::default() }
    }

    /// Asks all of these at once; the answers that came in time. Must be called on the main runtime, where connections live.
    pub(super) async fn ask<T: FromRedisValue>(&self, whom: &[Address], question: &Cmd) -> Vec<Answer<T>> {
        let mut asking: FuturesUnordered<_> = whom.iter().map(|address| self.ask_one(address, question)).collect();
        let mut answers = Vec::with_capacity(whom.len());
        let mut until = Instant::now() + PATIENCE;
        while let Ok(Some(answer)) = tokio::time::timeout_at(until, asking.next()).await {
            answers.push(answer);
            let answered = answers.iter().filter(|(_, answer)| answer.is_ok()).count();
            if answered == whom.len() / 2 + 1 {
                until = until.min(Instant::now() + AFTER_MOST);
            }
        }
        answers
    }

    async fn ask_one<T: FromRedisValue>(&self, address: &Address, question: &Cmd) -> Answer<T> {
        let answer = match self.conn(address).await {
            Ok(mut conn) => question.query_async(&mut conn).await.map_err(Silence::Refusal),
            Err(error) => Err(error),
        };
        if answer.is_err() {
            self.open.lock().remove(address);
        }
        (address.clone(), answer)
    }

    async fn conn(&self, address: &Address) -> Result<MultiplexedConnection, Silence> {
        if let Some(conn) = self.open.lock().get(address) {
            return Ok(conn.clone());
        }
        let info =
            self.login.at(address).map_err(|problem| Silence::NoConnection(GateError::Misconfigured(problem)))?;
        let connecting = async { Client::open(info)?.get_multiplexed_async_connection_with_config(&timeouts()).await };
        match connecting.await {
            Ok(conn) => {
                self.open.lock().insert(address.clone(), conn.clone());
                Ok(conn)
            }
            Err(error) if error.code().is_some() || error.kind() == ErrorKind::AuthenticationFailed => {
                Err(Silence::Refusal(error))
            }
            Err(error) => Err(Silence::NoConnection(self.login.failed(address, error).await)),
        }
    }

    /// Closes the connections to all but these.
    pub(super) fn keep(&self, known: &[Address]) {
        self.open.lock().retain(|address, _| known.contains(address));
    }
}
