//! The Redis server as this process reaches it: its links, scripts run and gates asked over them, and what its errors mean.

use std::sync::Arc;
use std::time::Instant;

use deadpool_redis::redis::{
    self, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, Script, ServerErrorKind, Value,
};

use super::clock::{Asked, ServerClock};
use super::connection::{ConnectionCell, Link, RedisServer};
use super::failure::{Failure, WRONG_TYPE, sort};
use super::keys::{GATE_FIELDS, Keys, SENTINEL};
use super::replies::{GateReply, OpenGate, nonsense, parse};
use super::scripts::Scripts;
use super::troubles::Troubles;
use crate::config;
use crate::model::{ProductId, Timestamp};
use crate::stock::types::GateError;

/// See the module.
pub(super) struct Server {
    pub(super) keys: Keys,
    pub(super) scripts: Scripts,
    /// For purchases, and what becomes of them.
    pub(super) cells: Vec<ConnectionCell>,
    /// For all who only look: however many they are, no purchase waits behind them.
    pub(super) reader: ConnectionCell,
    /// For the question whether the server answers, so that nobody else's questions delay it.
    pub(super) prober: ConnectionCell,
    /// For the question whose gates these are. Who asks gives up soon, and must not keep the prober from connecting.
    pub(super) owner_asker: ConnectionCell,
    pub(super) clock: ServerClock,
    pub(super) troubles: Troubles,
}

impl Server {
    pub(super) fn new(settings: &config::Redis, links: usize) -> Result<Self, String> {
        let server = Arc::new(RedisServer::new(settings)?);
        let cell = |pool| ConnectionCell::new(server.clone(), pool, settings.db);
        let own = || server.pool(1).map(&cell);
        let (reader, prober, owner_asker) = (own()?, own()?, own()?);
        let pool = server.pool(settings.pool_size)?;
        Ok(Self {
            keys: Keys::new(&settings.key_prefix),
            scripts: Scripts::default(),
            cells: (0..links.clamp(1, settings.pool_size)).map(|_| cell(pool.clone())).collect(),
            reader,
            prober,
            owner_asker,
            clock: ServerClock::default(),
            troubles: Troubles::default(),
        })
    }

    /// The cell that a product's steps go through.
    pub(super) fn cell(&self, product: ProductId) -> &ConnectionCell {
        &self.cells[product.get() as usize % self.cells.len()]
    }

    pub(super) fn all_cells(&self) -> impl Iterator<Item = &ConnectionCell> {
        self.cells.iter().chain([&self.reader, &self.prober, &self.owner_asker])
    }

    /// Runs a script on the product's link.
    pub(super) async fn invoke<T: FromRedisValue>(
        &self,
        product: ProductId,
        script: &Script,
        keys: &[String],
        args: impl FnOnce(&Link, &mut Cmd),
    ) -> Result<T, GateError> {
        let reply = self.invoke_on(self.cell(product), script, keys, args).await;
        reply.map_err(|error| self.unreadable(product, error))
    }

    /// The same, but only on the server of that identity.
    pub(super) async fn invoke_at<T: FromRedisValue>(
        &self,
        product: ProductId,
        server_id: &str,
        script: &Script,
        keys: &[String],
        args: impl FnOnce(&mut Cmd),
    ) -> Result<T, GateError> {
        if self.link(self.cell(product)).await?.server_id != server_id {
            return Err(GateError::Lost);
        }
        self.invoke(product, script, keys, |_, call| args(call)).await
    }

    /// Runs a script; loads it when the server does not know it. Not the library's own invocation, which allocates for each of
    /// the thousands of arguments.
    pub(super) async fn invoke_on<T: FromRedisValue>(
        &self,
        cell: &ConnectionCell,
        script: &Script,
        keys: &[String],
        args: impl FnOnce(&Link, &mut Cmd),
    ) -> Result<T, GateError> {
        let link = self.link(cell).await?;
        let mut call = redis::cmd("EVALSHA");
        call.arg(script.get_hash()).arg(keys.len()).arg(keys);
        args(&link, &mut call);
        let mut reply = call.query_async(&mut link.conn()).await;
        if let Err(error) = &reply
            && error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
        {
            reply = match script.load_async(&mut link.conn()).await {
                Ok(_) => call.query_async(&mut link.conn()).await,
                Err(error) => Err(error),
            };
        }
        self.answered(cell, &link, reply)
    }

    /// The link of a cell.
    pub(super) async fn link(&self, cell: &ConnectionCell) -> Result<Arc<Link>, GateError> {
        cell.link().await.inspect_err(|error| self.troubles.note(error))
    }

    /// Sorts errors, and drops a link that can no longer be trusted to answer.
    pub(super) fn answered<T>(
        &self,
        cell: &ConnectionCell,
        link: &Arc<Link>,
        reply: Result<T, RedisError>,
    ) -> Result<T, GateError> {
        reply.map_err(|error| {
            let Failure { error, connect_anew } = sort(&error);
            if connect_anew {
                cell.drop_link(link);
            }
            self.troubles.note(&error);
            error
        })
    }

    /// What cannot be read of a product's gate makes it lost: it is rebuilt, and other products go on.
    pub(super) fn unreadable(&self, product: ProductId, error: GateError) -> GateError {
        let GateError::Protocol(problem) = error else { return error };
        self.troubles.broken(product, &problem);
        GateError::Lost
    }

    /// A gate that cannot be read is not open, which is all that it costs others.
    pub(super) fn readable<T>(
        &self,
        product: ProductId,
        read: Result<Option<T>, GateError>,
    ) -> Result<Option<T>, GateError> {
        match read.map_err(|error| self.unreadable(product, error)) {
            Err(GateError::Lost) => Ok(None),
            other => other,
        }
    }

    /// What the gates of these products hold, `None` for one that is lost, closed or cannot be read; and the server's time.
    pub(super) async fn ask_gates(
        &self,
        cell: &ConnectionCell,
        products: &[ProductId],
    ) -> Result<(Asked, Vec<Option<OpenGate>>), GateError> {
        let link = self.link(cell).await?;
        let mut ask = redis::pipe();
        ask.cmd("TIME");
        for product in products {
            self.ask_gate(&mut ask, *product);
        }
        let sent = Instant::now();
        let mut reply = self.ask_each(cell, &link, &mut ask).await?.into_iter();
        let received = Instant::now();
        let (seconds, micros): (i64, i64) = parse(reply.next().ok_or_else(|| nonsense("a short reply"))?)?;
        let clock = Timestamp::from_unix_ms(seconds * 1000 + micros / 1000).ok_or_else(|| nonsense("the time"))?;
        let gate = |product: &ProductId| self.readable(*product, GateReply::read(&mut reply)?.open(&link.server_id));
        let gates = products.iter().map(gate).collect::<Result<_, _>>()?;
        let asked = Asked { sent, received, clock };
        self.clock.set(asked);
        Ok((asked, gates))
    }

    /// What [`GateReply::read`] reads.
    pub(super) fn ask_gate(&self, ask: &mut Pipeline, product: ProductId) {
        let (buyers, flight) = (self.keys.buyers(product), self.keys.flight(product));
        ask.cmd("HMGET").arg(self.keys.gate(product)).arg(&GATE_FIELDS);
        ask.hget(&buyers, SENTINEL).hlen(buyers).zscore(&flight, SENTINEL).zcard(flight);
    }

    /// The answers to all questions. An error about one key is an answer, for that key alone; any other is the server's.
    pub(super) async fn ask_each(
        &self,
        cell: &ConnectionCell,
        link: &Arc<Link>,
        ask: &mut Pipeline,
    ) -> Result<Vec<Value>, GateError> {
        let reply = ask.ignore_errors().query_async::<Vec<Value>>(&mut link.conn()).await.and_then(|answers| {
            let refusal = answers.iter().find_map(|answer| match answer {
                Value::ServerError(error) if error.code() != WRONG_TYPE => Some(error.clone()),
                _ => None,
            });
            refusal.map_or(Ok(answers), |error| Err(error.into()))
        });
        self.answered(cell, link, reply)
    }
}
