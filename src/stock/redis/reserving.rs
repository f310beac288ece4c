//! Takes units for purchases.

use std::time::Duration;

use deadpool_redis::redis::{Cmd, Value};
use moka::sync::Cache;

use super::connection::Link;
use super::gate::RedisGate;
use super::mark;
use super::replies::parse_admission;
use super::scripts::CHUNK;
use crate::model::{Click, Denial, ProductId, Purchase, Quantity, Revision, Terms};
use crate::stock::rate_limiter::RATE_WINDOW;
use crate::stock::types::{Admission, Answer, GateError};

/// Sales that are known to count addresses at most, and for how long after the last click.
const MAX_KNOWN: u64 = 10_000;
const KNOWN_FOR: Duration = Duration::from_secs(600);

impl RedisGate {
    pub(in crate::stock) async fn reserve(&self, product: ProductId, clicks: &[Click]) -> Result<Admission, GateError> {
        let mut admission = None;
        for chunk in clicks.chunks(CHUNK) {
            match (self.reserve_chunk(product, chunk).await?, &mut admission) {
                (Admission::Open { epoch, revision, terms, answers }, None) => {
                    admission = Some((epoch, revision, terms, answers));
                }
                (Admission::Open { epoch, revision, answers, .. }, Some((first_epoch, first, _, all)))
                    if epoch == *first_epoch =>
                {
                    // The product changed between two chunks: who has just got a unit holds it under another revision.
                    let own = |(click, answer): (&Click, Answer)| match answer {
                        Answer::Reserved if revision != *first => {
                            let Purchase { order_id, quantity, .. } = click.purchase;
                            Answer::InFlight { order_id, quantity, revision }
                        }
                        answer => answer,
                    };
                    all.extend(chunk.iter().zip(answers).map(own));
                }
                // Another gate has opened between two chunks. What the earlier chunks took is in flight, and the sweeper decides it.
                (Admission::Open { .. }, Some(_)) => return Err(GateError::Unclear("rebuilt meanwhile".to_owned())),
                (denied, None) => {
                    self.sold_out.watch_sale(product, std::iter::empty());
                    return Ok(denied);
                }
                // The sale has ended or was paused between two chunks. The sweeper decides what the earlier chunks took, as above.
                (_, Some(_)) => return Err(GateError::Unclear("closed meanwhile".to_owned())),
            }
        }
        let (epoch, revision, terms, answers) = admission.unwrap_or((0, Revision::FIRST, None, Vec::new()));
        let sold_out = Answer::Denied(Denial::SoldOut);
        if answers.contains(&sold_out) {
            let denied = clicks.iter().zip(&answers).filter(|(_, answer)| **answer == sold_out);
            self.sold_out.watch_sale(product, denied.map(|(click, _)| click.purchase.user_id));
        }
        Ok(Admission::Open { epoch, revision, terms, answers })
    }

    async fn reserve_chunk(&self, product: ProductId, clicks: &[Click]) -> Result<Admission, GateError> {
        let server = &self.server;
        let reply = match self.ask_for_units(product, clicks, self.address_limits.has(product)).await? {
            reply if needs_addresses(&reply) => self.ask_for_units(product, clicks, true).await?,
            reply => reply,
        };
        let parsed = parse_admission(reply, clicks.len());
        let (admission, version) = parsed.map_err(|error| server.unreadable(product, error))?;
        if let (Admission::Open { answers, terms, .. }, Some(version)) = (&admission, version) {
            self.address_limits.learn(product, terms.as_ref());
            if let Some(at) = answers.iter().position(|answer| *answer == Answer::Unreadable) {
                let problem = format!(
                    "the reservation of buyer {} is no order; `seckill deployment rebuild-gate {product}` makes it anew",
                    clicks[at].purchase.user_id
                );
                server.broken.note(product, &problem);
            }
            let reserved = clicks.iter().zip(answers).filter(|(_, answer)| **answer == Answer::Reserved);
            self.sold_out.admitted(product, version, reserved.map(|(click, _)| click.purchase.user_id));
        }
        Ok(admission)
    }

    async fn ask_for_units(
        &self,
        product: ProductId,
        clicks: &[Click],
        with_addresses: bool,
    ) -> Result<Vec<Value>, GateError> {
        let server = &self.server;
        let mut keys = Vec::from(server.keys.of_sale(product));
        if with_addresses {
            keys.push(server.keys.addresses(product));
        }
        let several = clicks.iter().any(|click| click.purchase.quantity != Quantity::ONE);
        let mut text = String::new();
        let args = |link: &Link, call: &mut Cmd| {
            call.arg(&link.server_id).arg(server.keys.rate_prefix(product)).arg(RATE_WINDOW.as_millis() as u64);
            call.arg(if several { "1" } else { "" });
            for Click { purchase, from } in clicks {
                text.clear();
                mark::push(&mut text, purchase);
                call.arg(purchase.user_id.get()).arg(&text);
                if with_addresses {
                    call.arg(from.map(|from| from.to_string()).unwrap_or_default());
                }
            }
        };
        server.invoke(product, &server.scripts.reserve, &keys, args).await
    }
}

/// The sale has a limit of an address, and the script was given none.
fn needs_addresses(reply: &[Value]) -> bool {
    matches!(reply, [Value::BulkString(word)] if word == b"addresses")
}

/// Sales that count their buyers' addresses, as their gates said last: the others are spared the addresses. One that is not known here
/// is asked in vain once.
pub(super) struct AddressLimits(Cache<ProductId, ()>);

impl Default for AddressLimits {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MAX_KNOWN).time_to_idle(KNOWN_FOR).build())
    }
}

impl AddressLimits {
    fn has(&self, product: ProductId) -> bool {
        self.0.contains_key(&product)
    }

    fn learn(&self, product: ProductId, terms: Option<&Terms>) {
        match terms.is_some_and(|terms| terms.max_per_address.is_some()) {
            true => self.0.insert(product, ()),
            false if self.has(product) => self.0.invalidate(&product),
            false => {}
        }
    }
}
