//! What the gate in Redis tells of itself. Nothing here changes it.

use std::time::{Duration, Instant};

use deadpool_redis::redis::{self, Value};

use super::link::Slot;
use super::replies::{OpenGate, done, nonsense, parse, parse_gate, parse_revision, parse_stale};
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
        let view = |OpenGate { terms, version, taken, in_flight }: OpenGate| {
            let remaining = (terms.stock - taken).max(0);
            GateView {
                remaining,
                state: terms.state(remaining, asked.clock),
                epoch: version.epoch,
                ver: terms.ver,
                stock: terms.stock,
                taken,
                in_flight,
            }
        };
        Ok(gates.into_iter().map(|gate| gate.map(view)).collect())
    }

    /// What the gates of these products hold, `None` for one that is lost or closed; and the server's time.
    pub(super) async fn ask_gates(
        &self,
        slot: &Slot,
        products: &[ProductId],
    ) -> Result<(Asked, Vec<Option<OpenGate>>), GateError> {
        let link = slot.link().await?;
        let mut ask = redis::pipe();
        ask.cmd("TIME");
        for product in products {
            ask.cmd("HMGET").arg(self.keys.gate(*product)).arg(&GATE_FIELDS);
            ask.hget(self.keys.buyers(*product), SENTINEL)
                .hlen(self.keys.buyers(*product))
                .zcard(self.keys.flight(*product));
        }
        let sent = Instant::now();
        let reply = ask.query_async::<Vec<Value>>(&mut link.conn()).await;
        let mut reply = self.answered(slot, &link, reply)?.into_iter();
        let received = Instant::now();
        let mut next = || reply.next().ok_or_else(|| nonsense("a short reply"));
        let (seconds, micros): (i64, i64) = parse(next()?)?;
        let clock = Timestamp::from_unix_ms(seconds * 1000 + micros / 1000).ok_or_else(|| nonsense("the time"))?;
        let gate = |_| {
            let fields: Vec<Option<String>> = parse(next()?)?;
            let sentinel: Option<String> = parse(next()?)?;
            let (marks, in_flight): (i64, i64) = (parse(next()?)?, parse(next()?)?);
            parse_gate(&fields, sentinel.as_deref(), (marks, in_flight), &link.home)
        };
        let gates = products.iter().map(gate).collect::<Result<_, _>>()?;
        let asked = Asked { sent, received, clock };
        self.clock.set(asked);
        Ok((asked, gates))
    }

    pub(in crate::stock) async fn held_by(
        &self,
        users: &[UserId],
        products: &[ProductId],
    ) -> Result<Vec<Option<Vec<HeldUnit>>>, GateError> {
        if products.is_empty() {
            return Ok(Vec::new());
        }
        let slot = &self.reader;
        let link = slot.link().await?;
        let mut ask = redis::pipe();
        for product in products {
            ask.cmd("HMGET").arg(self.keys.gate(*product)).arg(&["epoch", "home", "open"]);
            ask.cmd("HMGET").arg(self.keys.buyers(*product)).arg(SENTINEL);
            for user in users {
                ask.arg(user.get());
            }
        }
        let reply = ask.query_async::<Vec<Vec<Option<String>>>>(&mut link.conn()).await;
        let reply = self.answered(slot, &link, reply)?;
        let unit = |order: &Option<String>| match order {
            Some(order) => Ok(HeldUnit::Order(order.parse().map_err(nonsense)?)),
            None => Ok(HeldUnit::Nothing),
        };
        reply
            .chunks_exact(2)
            .map(|pair| match (&pair[0][..], &pair[1][..]) {
                ([Some(epoch), Some(home), Some(open)], [Some(sentinel), orders @ ..])
                    if *home == link.home && open == "1" && epoch == sentinel =>
                {
                    orders.iter().map(unit).collect::<Result<_, _>>().map(Some)
                }
                _ => Ok(None),
            })
            .collect()
    }

    pub(in crate::stock) async fn buyer_in_flight(
        &self,
        product: ProductId,
        order: OrderId,
    ) -> Result<Option<UserId>, GateError> {
        let slot = &self.reader;
        let link = slot.link().await?;
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
            let (next, found) = self.answered(slot, &link, reply)?;
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
                call.arg(&link.home).arg(format!("{order_id}:{user_id}"));
            })
            .await?;
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
                call.arg(&link.home).arg(age.as_millis() as u64).arg(most);
            })
            .await?;
        parse_stale(&reply)
    }
}
