//! Redis as this process reaches it, one server or the several of a cluster: the links, scripts run and gates asked over them, and what
//! errors mean.

use std::sync::Arc;
use std::time::Instant;

use deadpool_redis::redis::{
    self, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, Script, ServerErrorKind, Value,
};
use futures_util::future::join_all;

use super::clock::Asked;
use super::connection::{ConnectionCell, Link};
use super::failure::{Failure, WRONG_TYPE, sort};
use super::keys::{GATE_FIELDS, Keys, SENTINEL};
use super::replies::{GateReply, OpenGate, nonsense, parse};
use super::scripts::Scripts;
use super::shard::Shard;
use super::shards::Shards;
use super::troubles::BrokenGates;
use crate::config;
use crate::model::{ProductId, Timestamp};
use crate::stock::types::GateError;

/// See the module.
pub(super) struct RedisAccess {
    pub(super) keys: Keys,
    pub(super) scripts: Scripts,
    pub(super) shards: Shards,
    pub(super) broken: BrokenGates,
}

/// Products of one shard, and their places among all that are asked about.
type OfOneShard = (Result<Arc<Shard>, GateError>, Vec<usize>, Vec<ProductId>);

impl RedisAccess {
    pub(super) fn new(settings: &config::Redis, links: usize) -> Result<Self, String> {
        Ok(Self {
            keys: Keys::new(&settings.key_prefix),
            scripts: Scripts::default(),
            shards: Shards::new(settings, links)?,
            broken: BrokenGates::default(),
        })
    }

    /// Asks each shard about its products, all at once: the answers in the order of `products`.
    pub(super) async fn ask_each_shard<T, F: Future<Output = Result<Vec<Option<T>>, GateError>>>(
        &self,
        products: &[ProductId],
        ask: impl Fn(Arc<Shard>, Vec<ProductId>) -> F,
    ) -> Vec<Result<Option<T>, GateError>> {
        if products.is_empty() {
            return Vec::new();
        }
        let asking = self.by_shard(products).await.into_iter().map(|(shard, places, products)| {
            let asked = shard.map(|shard| ask(shard, products));
            async move {
                match asked {
                    Ok(asked) => (places, asked.await),
                    Err(error) => (places, Err(error)),
                }
            }
        });
        let mut all: Vec<Result<Option<T>, GateError>> = products.iter().map(|_| Ok(None)).collect();
        for (places, answers) in join_all(asking).await {
            match answers {
                Ok(answers) => {
                    places.into_iter().zip(answers).for_each(|(place, answer)| all[place] = Ok(answer));
                }
                Err(error) => places.into_iter().for_each(|place| all[place] = Err(error.clone())),
            }
        }
        all
    }

    /// Which of these products each shard has.
    pub(super) async fn by_shard(&self, products: &[ProductId]) -> Vec<OfOneShard> {
        if let Shards::One(shard) = &self.shards {
            return vec![(Ok(shard.clone()), (0..products.len()).collect(), products.to_vec())];
        }
        let mut groups: Vec<OfOneShard> = Vec::new();
        for (place, product) in products.iter().enumerate() {
            let shard = self.shards.of(*product).await;
            let same = |group: &&mut OfOneShard| match (&group.0, &shard) {
                (Ok(one), Ok(other)) => Arc::ptr_eq(one, other),
                (Err(one), Err(other)) => one == other,
                _ => false,
            };
            match groups.iter_mut().find(same) {
                Some((_, places, products)) => {
                    places.push(place);
                    products.push(*product);
                }
                None => groups.push((shard, vec![place], vec![*product])),
            }
        }
        groups
    }

    /// Runs a script on the product's link.
    pub(super) async fn invoke<T: FromRedisValue>(
        &self,
        product: ProductId,
        script: &Script,
        keys: &[String],
        args: impl FnOnce(&Link, &mut Cmd),
    ) -> Result<T, GateError> {
        let shard = self.shards.of(product).await?;
        let reply = self.invoke_on(&shard, shard.cell(product), script, keys, args).await;
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
        let shard = self.shards.of(product).await?;
        let cell = shard.cell(product);
        if self.link(&shard, cell).await?.server_id != server_id {
            return Err(GateError::Lost);
        }
        let reply = self.invoke_on(&shard, cell, script, keys, |_, call| args(call)).await;
        reply.map_err(|error| self.unreadable(product, error))
    }

    /// Runs a script; loads it when the server does not know it. Not the library's own invocation, which allocates for each of
    /// the thousands of arguments.
    pub(super) async fn invoke_on<T: FromRedisValue>(
        &self,
        shard: &Shard,
        cell: &ConnectionCell,
        script: &Script,
        keys: &[String],
        args: impl FnOnce(&Link, &mut Cmd),
    ) -> Result<T, GateError> {
        let link = self.link(shard, cell).await?;
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
        self.answered(shard, cell, &link, reply)
    }

    /// The link of a cell of this shard.
    pub(super) async fn link(&self, shard: &Shard, cell: &ConnectionCell) -> Result<Arc<Link>, GateError> {
        cell.link().await.inspect_err(|error| {
            shard.troubles.note(error);
            self.shards.look_again();
        })
    }

    /// Sorts errors, and drops a link that can no longer be trusted to answer.
    pub(super) fn answered<T>(
        &self,
        shard: &Shard,
        cell: &ConnectionCell,
        link: &Arc<Link>,
        reply: Result<T, RedisError>,
    ) -> Result<T, GateError> {
        reply.map_err(|error| {
            let Failure { error, connect_anew, look_again } = sort(&error);
            if connect_anew {
                cell.drop_link(link);
            }
            if look_again {
                self.shards.look_again();
            }
            shard.troubles.note(&error);
            error
        })
    }

    /// What cannot be read of a product's gate makes it lost: it is rebuilt, and other products go on.
    pub(super) fn unreadable(&self, product: ProductId, error: GateError) -> GateError {
        let GateError::Protocol(problem) = error else { return error };
        self.broken.note(product, &problem);
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
        shard: &Shard,
        cell: &ConnectionCell,
        products: &[ProductId],
    ) -> Result<(Asked, Vec<Option<OpenGate>>), GateError> {
        let link = self.link(shard, cell).await?;
        let mut ask = redis::pipe();
        ask.cmd("TIME");
        for product in products {
            self.ask_gate(&mut ask, *product);
        }
        let sent = Instant::now();
        let mut reply = self.ask_each(shard, cell, &link, &mut ask).await?.into_iter();
        let received = Instant::now();
        let (seconds, micros): (i64, i64) = parse(reply.next().ok_or_else(|| nonsense("a short reply"))?)?;
        let clock = Timestamp::from_unix_ms(seconds * 1000 + micros / 1000).ok_or_else(|| nonsense("the time"))?;
        let gate = |product: &ProductId| self.readable(*product, GateReply::read(&mut reply)?.open(&link.server_id));
        let gates = products.iter().map(gate).collect::<Result<_, _>>()?;
        let asked = Asked { sent, received, clock };
        shard.clock.set(asked);
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
        shard: &Shard,
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
        self.answered(shard, cell, link, reply)
    }
}
