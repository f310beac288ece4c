//! The gate in Redis: one Lua script a step, all keys of a product in one hash tag.

mod clock;
mod connection;
mod failure;
mod flights;
mod identity;
mod keys;
mod opening;
mod reading;
mod replies;
mod sold_out_cache;
mod troubles;

pub use self::opening::Staging;

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::redis::{self, Cmd, ErrorKind, FromRedisValue, RedisError, Script, ServerErrorKind, Value};
use tokio_util::sync::CancellationToken;

use self::clock::ServerClock;
use self::connection::{ConnectionCell, Link, pool, read_server_id};
use self::failure::{Failure, sort};
use self::flights::Noted;
use self::keys::Keys;
use self::replies::{done, parse_admission};
use self::sold_out_cache::Refusals;
use self::troubles::Troubles;
use super::{Admission, Answer, GateError, RATE_WINDOW, rate_wait};
use crate::config;
use crate::model::{Denial, OrderId, ProductId, Purchase, Revision, SaleSettings, Timestamp, UserId};

/// How often an idle link's server is asked who it is.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// What a purchase needs is tried once in this time at most.
const PROBED_FOR: Duration = Duration::from_secs(1);
/// Purchases a script takes at most: Lua's stack holds a few thousand arguments, and other clients wait meanwhile.
const CHUNK: usize = 500;
/// Field of `buyers` that holds the epoch, so that the loss of this key alone is noticed. No user has the id 0.
const SENTINEL: &str = "0";

/// What describes a gate, in the order that `replies` reads.
const GATE_FIELDS: [&str; 9] = ["epoch", "home", "open", "ver", "stock", "starts", "ends", "paused", "seq"];

/// See the module.
pub struct RedisGate {
    keys: Keys,
    /// For purchases, and what becomes of them.
    cells: Vec<ConnectionCell>,
    /// For all who only look: however many they are, no purchase waits behind them.
    reader: ConnectionCell,
    /// For the question whether the server answers, so that nobody else's questions delay it.
    prober: ConnectionCell,
    clock: ServerClock,
    refusals: Refusals,
    troubles: Troubles,
    probed: tokio::sync::Mutex<Option<(Instant, Result<(), GateError>)>>,
    probe: Script,
    reserve: Script,
    settle: Script,
    release: Script,
    configure: Script,
    close: Script,
    install: Script,
    retire: Script,
    stale: Script,
    readmit: Script,
    in_flight: Script,
    flights: Script,
    noted: Noted,
}

impl RedisGate {
    pub(super) fn new(settings: &config::Redis, links: usize) -> Result<Self, String> {
        let own = |cells| Ok::<_, String>(ConnectionCell::new(pool(settings, cells)?, settings.db));
        let (reader, prober) = (own(1)?, own(1)?);
        let pool = pool(settings, settings.pool_size)?;
        Ok(Self {
            keys: Keys::new(&settings.key_prefix),
            cells: (0..links.clamp(1, settings.pool_size))
                .map(|_| ConnectionCell::new(pool.clone(), settings.db))
                .collect(),
            reader,
            prober,
            clock: ServerClock::default(),
            refusals: Refusals::default(),
            troubles: Troubles::default(),
            probed: tokio::sync::Mutex::default(),
            probe: Script::new(include_str!("scripts/probe.lua")),
            reserve: Script::new(concat!(include_str!("scripts/revision_at.lua"), include_str!("scripts/reserve.lua"))),
            settle: Script::new(include_str!("scripts/settle.lua")),
            release: Script::new(include_str!("scripts/release.lua")),
            configure: Script::new(include_str!("scripts/configure.lua")),
            close: Script::new(include_str!("scripts/close.lua")),
            install: Script::new(include_str!("scripts/install.lua")),
            retire: Script::new(include_str!("scripts/retire.lua")),
            readmit: Script::new(include_str!("scripts/readmit.lua")),
            stale: Script::new(concat!(include_str!("scripts/revision_at.lua"), include_str!("scripts/stale.lua"))),
            in_flight: Script::new(concat!(
                include_str!("scripts/revision_at.lua"),
                include_str!("scripts/in_flight.lua")
            )),
            flights: Script::new(include_str!("scripts/flights.lua")),
            noted: Noted::default(),
        })
    }

    pub(super) async fn server_id(&self) -> Result<String, GateError> {
        let cell = &self.cells[0];
        let link = self.link(cell).await?;
        // Asked anew: the link may be older than a failover.
        let server_id = read_server_id(&mut link.conn()).await;
        if server_id.as_ref() != Ok(&link.server_id) {
            cell.drop_link(&link);
        } else {
            let _ = self.ask_gates(cell, &[]).await;
        }
        server_id
    }

    /// The time by which sales begin and end.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) async fn reserve(&self, product: ProductId, purchases: &[Purchase]) -> Result<Admission, GateError> {
        let mut admission = None;
        for chunk in purchases.chunks(CHUNK) {
            match (self.reserve_chunk(product, chunk).await?, &mut admission) {
                (Admission::Open { epoch, revision, answers }, None) => admission = Some((epoch, revision, answers)),
                (Admission::Open { epoch, revision, answers }, Some((first_epoch, first, all)))
                    if epoch == *first_epoch =>
                {
                    // The product changed between two chunks: whoever has just got a unit holds it under another revision.
                    let own = |(purchase, answer): (&Purchase, Answer)| match answer {
                        Answer::Reserved if revision != *first => {
                            Answer::InFlight { order_id: purchase.order_id, revision }
                        }
                        answer => answer,
                    };
                    all.extend(chunk.iter().zip(answers).map(own));
                }
                // The sale changed between two chunks: the first one's units are in flight, which the sweeper settles.
                (Admission::Open { .. }, Some(_)) => return Err(GateError::Unclear("rebuilt meanwhile".to_owned())),
                (refused, None) => {
                    self.refusals.watch_sale(product, std::iter::empty());
                    return Ok(refused);
                }
                (_, Some(_)) => return Err(GateError::Unclear("closed meanwhile".to_owned())),
            }
        }
        let (epoch, revision, answers) = admission.unwrap_or((0, Revision::FIRST, Vec::new()));
        let sold_out = Answer::Denied(Denial::SoldOut);
        if answers.contains(&sold_out) {
            let refused = purchases.iter().zip(&answers).filter(|(_, answer)| **answer == sold_out);
            self.refusals.watch_sale(product, refused.map(|(purchase, _)| purchase.user_id));
        }
        Ok(Admission::Open { epoch, revision, answers })
    }

    pub(super) fn denial(&self, product: ProductId, user: UserId) -> Option<Denial> {
        self.refusals.denial(product, user)
    }

    async fn reserve_chunk(&self, product: ProductId, purchases: &[Purchase]) -> Result<Admission, GateError> {
        let keys = [self.keys.gate(product), self.keys.buyers(product), self.keys.flight(product)];
        let reply: Vec<Value> = self
            .invoke(product, &self.reserve, &keys, |link, call| {
                call.arg(&link.server_id).arg(self.keys.rate_prefix(product)).arg(RATE_WINDOW.as_millis() as u64);
                for purchase in purchases {
                    call.arg(purchase.user_id.get()).arg(purchase.order_id.encode(&mut [0; OrderId::LENGTH]));
                }
            })
            .await?;
        let parsed = parse_admission(reply, purchases.len());
        let (admission, version) = parsed.map_err(|error| self.unreadable(product, error))?;
        if let (Admission::Open { answers, .. }, Some(version)) = (&admission, version) {
            if let Some(at) = answers.iter().position(|answer| *answer == Answer::Unreadable) {
                let problem = format!(
                    "the mark of buyer {} is no order; `seckill deployment rebuild-gate {product}` makes it anew",
                    purchases[at].user_id
                );
                self.troubles.broken(product, &problem);
            }
            let taken = purchases.iter().zip(answers).filter(|(_, answer)| **answer == Answer::Reserved);
            self.refusals.admitted(product, version, taken.map(|(purchase, _)| purchase.user_id));
        }
        Ok(admission)
    }

    pub(super) async fn settle(&self, product: ProductId, purchases: &[Purchase]) -> Result<(), GateError> {
        for chunk in purchases.chunks(CHUNK) {
            let mut member = String::new();
            let reply: String = self
                .invoke(product, &self.settle, &[self.keys.gate(product), self.keys.flight(product)], |link, call| {
                    call.arg(&link.server_id);
                    for purchase in chunk {
                        member.clear();
                        member.push_str(purchase.order_id.encode(&mut [0; OrderId::LENGTH]));
                        member.push(':');
                        member.push_str(itoa::Buffer::new().format(purchase.user_id.get()));
                        call.arg(&member);
                    }
                })
                .await?;
            done(&reply)?;
        }
        Ok(())
    }

    pub(super) async fn release(
        &self,
        product: ProductId,
        epoch: i64,
        purchases: &[Purchase],
    ) -> Result<(), GateError> {
        let now = Timestamp::now();
        let keys = [self.keys.gate(product), self.keys.buyers(product), self.keys.flight(product)];
        for chunk in purchases.chunks(CHUNK) {
            let reply = self
                .invoke(product, &self.release, &keys, |link, call| {
                    call.arg(&link.server_id).arg(epoch).arg(self.keys.rate_prefix(product));
                    for purchase in chunk {
                        let wait = rate_wait(purchase, now).as_millis() as u64;
                        call.arg(purchase.order_id.encode(&mut [0; OrderId::LENGTH]));
                        call.arg(purchase.user_id.get()).arg(wait);
                    }
                })
                .await;
            self.changed(product, reply)?;
        }
        Ok(())
    }

    pub(super) async fn configure(&self, product: ProductId, settings: &SaleSettings) -> Result<(), GateError> {
        let reply = self
            .invoke(product, &self.configure, &[self.keys.gate(product), self.keys.flight(product)], |link, call| {
                call.arg(&link.server_id);
                add_settings(call, settings);
            })
            .await;
        self.changed(product, reply)
    }

    /// After a step that may have changed whom a sale refuses, also one whose reply did not come.
    fn changed(&self, product: ProductId, reply: Result<String, GateError>) -> Result<(), GateError> {
        self.refusals.forget(product);
        done(&reply?)
    }

    /// Those who ask while somebody finds out wait for the same answer.
    pub(super) async fn ping(&self) -> Result<(), GateError> {
        let mut probed = self.probed.lock().await;
        if let Some((at, result)) = &*probed
            && at.elapsed() < PROBED_FOR
        {
            return result.clone();
        }
        let result = self.try_a_purchase().await;
        *probed = Some((Instant::now(), result.clone()));
        result
    }

    /// Does what a purchase needs, without touching a sale.
    async fn try_a_purchase(&self) -> Result<(), GateError> {
        let (keys, rate_prefix) = self.keys.probe();
        let reply: Result<String, _> = self
            .invoke_on(&self.prober, &self.probe, &keys, |_, call| {
                call.arg(rate_prefix);
            })
            .await;
        let tried = reply.and_then(|reply| done(&reply));
        if tried.is_ok() {
            self.troubles.over();
        }
        tried
    }

    pub(super) async fn watch(&self, stop: CancellationToken) {
        tokio::join!(self.watch_links(&stop), self.keep_refusals(&stop));
    }

    async fn watch_links(&self, stop: &CancellationToken) {
        let mut tick = tokio::time::interval(WATCH_INTERVAL);
        let mut known_home = None;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let _ = self.ask_gates(&self.reader, &[]).await;
            let _ = self.ping().await;
            for cell in self.cells.iter().chain([&self.reader, &self.prober]) {
                let Some(link) = cell.current() else { continue };
                match read_server_id(&mut link.conn()).await {
                    Ok(server_id) if server_id == link.server_id => known_home = Some(server_id),
                    Ok(server_id) => {
                        // Each of the links finds out by itself.
                        if known_home.replace(server_id.clone()).is_some_and(|known| known != server_id) {
                            tracing::warn!("Redis is another server than before: connecting anew");
                        }
                        cell.drop_link(&link);
                    }
                    Err(error) => {
                        self.troubles.note(&error);
                        cell.drop_link(&link);
                    }
                }
            }
        }
    }

    fn cell(&self, product: ProductId) -> &ConnectionCell {
        &self.cells[product.get() as usize % self.cells.len()]
    }

    /// Runs a script on the product's link; loads it when the server does not know it. Not the library's own invocation,
    /// which allocates for each of the thousands of arguments.
    async fn invoke<T: FromRedisValue>(
        &self,
        product: ProductId,
        script: &Script,
        keys: &[String],
        args: impl FnOnce(&Link, &mut Cmd),
    ) -> Result<T, GateError> {
        let reply = self.invoke_on(self.cell(product), script, keys, args).await;
        reply.map_err(|error| self.unreadable(product, error))
    }

    /// What cannot be read of a product's gate makes it lost: it is rebuilt, and other products go on.
    fn unreadable(&self, product: ProductId, error: GateError) -> GateError {
        let GateError::Protocol(problem) = error else { return error };
        self.troubles.broken(product, &problem);
        GateError::Lost
    }

    /// The same on a link of another kind.
    async fn invoke_on<T: FromRedisValue>(
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

    /// The same, but only on the server of that identity.
    async fn invoke_at<T: FromRedisValue>(
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

    /// The link of a slot.
    async fn link(&self, cell: &ConnectionCell) -> Result<Arc<Link>, GateError> {
        cell.link().await.inspect_err(|error| self.troubles.note(error))
    }

    /// Sorts errors, and drops a link that can no longer be trusted to answer.
    fn answered<T>(
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
}

fn add_settings(call: &mut Cmd, settings: &SaleSettings) {
    let ends = settings.ends_at.map(|end| end.unix_ms().to_string()).unwrap_or_default();
    call.arg(settings.ver)
        .arg(settings.stock)
        .arg(settings.starts_at.unix_ms())
        .arg(ends)
        .arg(i32::from(settings.paused));
}
