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
    /// What is wrong if none of them answers.
    silent: &'static str,
    open: Mutex<HashMap<Address, MultiplexedConnection>>,
}

/// What one of them answered, or refused; without a connection, what is wrong with that.
type Answer<T> = Result<Result<T, RedisError>, GateError>;

impl Informants {
    pub(super) fn new(login: Login, silent: &'static str) -> Self {
        Self { login, silent, open: Mutex::default() }
    }

    /// Asks all of these at once; what `read` makes of the answers that came in time. An error: there is none that says something.
    /// Must be called on the main runtime, where connections live.
    pub(super) async fn ask<T: FromRedisValue, R>(
        &self,
        whom: &[Address],
        question: &Cmd,
        read: impl Fn(&Address, Result<T, RedisError>) -> Result<R, GateError>,
    ) -> Result<Vec<R>, GateError> {
        let mut asking: FuturesUnordered<_> = whom.iter().map(|address| self.ask_one(address, question)).collect();
        let (mut said, mut answered, mut failure) = (Vec::with_capacity(whom.len()), 0, None);
        let mut until = Instant::now() + PATIENCE;
        while let Ok(Some((address, answer))) = tokio::time::timeout_at(until, asking.next()).await {
            if matches!(answer, Ok(Ok(_))) {
                answered += 1;
                if answered == whom.len() / 2 + 1 {
                    until = until.min(Instant::now() + AFTER_MOST);
                }
            }
            match answer.and_then(|answer| read(address, answer)) {
                Ok(one) => said.push(one),
                // What is configured wrongly is worth more to who reads it than who does not answer.
                Err(GateError::Unreachable(_)) if failure.is_some() => {}
                Err(error) => failure = Some(error),
            }
        }
        if said.is_empty() {
            return Err(failure.unwrap_or_else(|| GateError::Unreachable(self.silent.to_owned())));
        }
        Ok(said)
    }

    async fn ask_one<'a, T: FromRedisValue>(&self, address: &'a Address, question: &Cmd) -> (&'a Address, Answer<T>) {
        let answer = match self.conn(address).await {
            Ok(Ok(mut conn)) => Ok(question.query_async(&mut conn).await),
            Ok(Err(refusal)) => Ok(Err(refusal)),
            Err(error) => Err(error),
        };
        if !matches!(answer, Ok(Ok(_))) {
            self.open.lock().remove(address);
        }
        (address, answer)
    }

    async fn conn(&self, address: &Address) -> Answer<MultiplexedConnection> {
        if let Some(conn) = self.open.lock().get(address) {
            return Ok(Ok(conn.clone()));
        }
        let info = self.login.at(address).map_err(GateError::Misconfigured)?;
        let connecting = async { Client::open(info)?.get_multiplexed_async_connection_with_config(&timeouts()).await };
        match connecting.await {
            Ok(conn) => {
                self.open.lock().insert(address.clone(), conn.clone());
                Ok(Ok(conn))
            }
            Err(error) if error.code().is_some() || error.kind() == ErrorKind::AuthenticationFailed => Ok(Err(error)),
            Err(error) => Err(self.login.failed(address, error).await),
        }
    }

    /// Closes the connections to all but these.
    pub(super) fn keep(&self, known: &[Address]) {
        self.open.lock().retain(|address, _| known.contains(address));
    }
}
