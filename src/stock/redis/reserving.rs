//! Takes units for purchases.

use deadpool_redis::redis::Value;

use super::gate::RedisGate;
use super::mark;
use super::replies::parse_admission;
use super::scripts::CHUNK;
use crate::model::{Denial, ProductId, Purchase, Quantity, Revision};
use crate::stock::rate_limiter::RATE_WINDOW;
use crate::stock::types::{Admission, Answer, GateError};

impl RedisGate {
    pub(in crate::stock) async fn reserve(
        &self,
        product: ProductId,
        purchases: &[Purchase],
    ) -> Result<Admission, GateError> {
        let mut admission = None;
        for chunk in purchases.chunks(CHUNK) {
            match (self.reserve_chunk(product, chunk).await?, &mut admission) {
                (Admission::Open { epoch, revision, terms, answers }, None) => {
                    admission = Some((epoch, revision, terms, answers));
                }
                (Admission::Open { epoch, revision, answers, .. }, Some((first_epoch, first, _, all)))
                    if epoch == *first_epoch =>
                {
                    // The product changed between two chunks: who has just got a unit holds it under another revision.
                    let own = |(purchase, answer): (&Purchase, Answer)| match answer {
                        Answer::Reserved if revision != *first => {
                            let Purchase { order_id, quantity, .. } = *purchase;
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
            let denied = purchases.iter().zip(&answers).filter(|(_, answer)| **answer == sold_out);
            self.sold_out.watch_sale(product, denied.map(|(purchase, _)| purchase.user_id));
        }
        Ok(Admission::Open { epoch, revision, terms, answers })
    }

    async fn reserve_chunk(&self, product: ProductId, purchases: &[Purchase]) -> Result<Admission, GateError> {
        let server = &self.server;
        let several = purchases.iter().any(|purchase| purchase.quantity != Quantity::ONE);
        let mut mark = String::new();
        let reply: Vec<Value> = server
            .invoke(product, &server.scripts.reserve, &server.keys.of_sale(product), |link, call| {
                call.arg(&link.server_id).arg(server.keys.rate_prefix(product)).arg(RATE_WINDOW.as_millis() as u64);
                call.arg(if several { "1" } else { "" });
                for purchase in purchases {
                    mark.clear();
                    mark::push(&mut mark, purchase);
                    call.arg(purchase.user_id.get()).arg(&mark);
                }
            })
            .await?;
        let parsed = parse_admission(reply, purchases.len());
        let (admission, version) = parsed.map_err(|error| server.unreadable(product, error))?;
        if let (Admission::Open { answers, .. }, Some(version)) = (&admission, version) {
            if let Some(at) = answers.iter().position(|answer| *answer == Answer::Unreadable) {
                let problem = format!(
                    "the reservation of buyer {} is no order; `seckill deployment rebuild-gate {product}` makes it anew",
                    purchases[at].user_id
                );
                server.broken.note(product, &problem);
            }
            let reserved = purchases.iter().zip(answers).filter(|(_, answer)| **answer == Answer::Reserved);
            self.sold_out.admitted(product, version, reserved.map(|(purchase, _)| purchase.user_id));
        }
        Ok(admission)
    }
}
