//! What the gate in Redis tells of itself. Nothing here changes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::redis::{self, Pipeline, Value};

use super::connection::{ConnectionCell, Link};
use super::failure::WRONG_TYPE;
use super::replies::{GateReply, OpenGate, done, nonsense, parse, parse_held, parse_revision, parse_stale};
use super::{GATE_FIELDS, RedisGate, SENTINEL};
use crate::model::{OrderId, ProductId, Purchase, Revision, Timestamp, UserId};
use crate::stock::{GateError, GateView, HeldUnit, Stale};

/// When gates were asked, by our clock and by their own.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) sent: Instant,
    pub(super) received: Instant,
    pub(super) clock: Timestamp,
}

impl RedisGate {
    pub(in crate::stock) async fn view(&self, products: &[ProductId]) -> Result<Vec<Option<GateView>>, GateError> {
        if products.is_empty() {
            return Ok(Vec::new());
        }
        let (asked, gates) = self.ask_gates(&self.reader, products).await?;
        let view = |OpenGate { settings, version, taken, in_flight }: OpenGate| {
            let remaining = (settings.stock - taken).max(0);
            GateView {
                remaining,
                state: settings.state(remaining, asked.clock),
                epoch: version.epoch,
                ver: settings.ver,
                stock: settings.stock,
                taken,
                in_flight,
            }
        };
        Ok(gates.into_iter().map(|gate| gate.map(view)).collect())
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

    /// A gate that cannot be read is not open, which is all that it costs others.
    fn readable<T>(&self, product: ProductId, read: Result<Option<T>, GateError>) -> Result<Option<T>, GateError> {
        match read.map_err(|error| self.unreadable(product, error)) {
            Err(GateError::Lost) => Ok(None),
            other => other,
        }
    }

    pub(in crate::stock) async fn held_by(
        &self,
        users: &[UserId],
        products: &[ProductId],
    ) -> Result<Vec<Option<Vec<HeldUnit>>>, GateError> {
        if products.is_empty() {
            return Ok(Vec::new());
        }
        let cell = &self.reader;
        let link = self.link(cell).await?;
        let mut ask = redis::pipe();
        for product in products {
            ask.cmd("HMGET").arg(self.keys.gate(*product)).arg(&["epoch", "home", "open"]);
            ask.cmd("HMGET").arg(self.keys.buyers(*product)).arg(SENTINEL);
            for user in users {
                ask.arg(user.get());
            }
        }
        let mut reply = self.ask_each(cell, &link, &mut ask).await?.into_iter();
        let mut next = || reply.next().ok_or_else(|| nonsense("a short reply"));
        let held = |product: &ProductId| {
            let (gate, mark) = (next()?, next()?);
            self.readable(*product, parse_held(gate, mark, &link.server_id))
        };
        products.iter().map(held).collect()
    }

    pub(in crate::stock) async fn buyer_in_flight(
        &self,
        product: ProductId,
        order: OrderId,
    ) -> Result<Option<UserId>, GateError> {
        let cell = &self.reader;
        let link = self.link(cell).await?;
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("ZSCAN");
            scan.arg(self.keys.flight(product))
                .arg(cursor)
                .arg("MATCH")
                .arg(format!("{order}:*"))
                .arg("COUNT")
                .arg(1000);
            let reply = scan.query_async::<(u64, Vec<String>)>(&mut link.conn()).await;
            let (next, found) = self.answered(cell, &link, reply)?;
            if let Some(member) = found.first() {
                let (_, user) = member.split_once(':').ok_or_else(|| nonsense(member))?;
                return Ok(Some(user.parse().map_err(nonsense)?));
            }
            if next == 0 {
                return Ok(None);
            }
            cursor = next;
        }
    }

    pub(in crate::stock) async fn revision_in_flight(
        &self,
        product: ProductId,
        purchase: Purchase,
    ) -> Result<Option<Revision>, GateError> {
        let keys = [self.keys.gate(product), self.keys.flight(product)];
        let Purchase { order_id, user_id } = purchase;
        let reply: String = self
            .invoke_on(&self.reader, &self.in_flight, &keys, |link, call| {
                call.arg(&link.server_id).arg(format!("{order_id}:{user_id}"));
            })
            .await
            .map_err(|error| self.unreadable(product, error))?;
        match reply.as_str() {
            "landed" => Ok(None),
            word => match word.parse() {
                Ok(number) => parse_revision(number).map(Some),
                Err(_) => done(word).and_then(|()| Err(nonsense(word))),
            },
        }
    }

    pub(in crate::stock) async fn stale(
        &self,
        product: ProductId,
        age: Duration,
        most: usize,
    ) -> Result<Stale, GateError> {
        let keys = [self.keys.gate(product), self.keys.buyers(product), self.keys.flight(product)];
        let reply: Vec<String> = self
            .invoke(product, &self.stale, &keys, |link, call| {
                call.arg(&link.server_id).arg(age.as_millis() as u64).arg(most);
            })
            .await?;
        let (stale, unreadable) = parse_stale(&reply).map_err(|error| self.unreadable(product, error))?;
        if let Some(member) = unreadable {
            self.troubles.broken(
                product,
                &format!(
                    "`{member}` in flight is no purchase; `seckill deployment rebuild-gate {product}` makes it anew"
                ),
            );
        }
        Ok(stale)
    }
}
