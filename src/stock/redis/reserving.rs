//! Takes units for purchases.

use deadpool_redis::redis::Value;

use super::gate::RedisGate;
use super::replies::parse_admission;
use super::scripts::CHUNK;
use crate::model::{Denial, OrderId, ProductId, Purchase, Revision};
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
                (Admission::Open { epoch, revision, answers }, None) => admission = Some((epoch, revision, answers)),
                (Admission::Open { epoch, revision, answers }, Some((first_epoch, first, all)))
                    if epoch == *first_epoch =>
                {
                    // The product changed between two chunks: who has just got a unit holds it under another revision.
                    let own = |(purchase, answer): (&Purchase, Answer)| match answer {
                        Answer::Reserved if revision != *first => {
                            Answer::InFlight { order_id: purchase.order_id, revision }
                        }
                        answer => answer,
                    };
                    all.extend(chunk.iter().zip(answers).map(own));
                }
                // The sale changed between two chunks: the first one's units are in flight, which the sweeper decides.
                (Admission::Open { .. }, Some(_)) => return Err(GateError::Unclear("rebuilt meanwhile".to_owned())),
                (denied, None) => {
                    self.sold_out.watch_sale(product, std::iter::empty());
                    return Ok(denied);
                }
                (_, Some(_)) => return Err(GateError::Unclear("closed meanwhile".to_owned())),
            }
        }
        let (epoch, revision, answers) = admission.unwrap_or((0, Revision::FIRST, Vec::new()));
        let sold_out = Answer::Denied(Denial::SoldOut);
        if answers.contains(&sold_out) {
            let denied = purchases.iter().zip(&answers).filter(|(_, answer)| **answer == sold_out);
            self.sold_out.watch_sale(product, denied.map(|(purchase, _)| purchase.user_id));
        }
        Ok(Admission::Open { epoch, revision, answers })
    }

    async fn reserve_chunk(&self, product: ProductId, purchases: &[Purchase]) -> Result<Admission, GateError> {
        let server = &self.server;
        let reply: Vec<Value> = server
            .invoke(product, &server.scripts.reserve, &server.keys.of_sale(product), |link, call| {
                call.arg(&link.server_id).arg(server.keys.rate_prefix(product)).arg(RATE_WINDOW.as_millis() as u64);
                for purchase in purchases {
                    call.arg(purchase.user_id.get()).arg(purchase.order_id.encode(&mut [0; OrderId::LENGTH]));
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
                server.troubles.broken(product, &problem);
            }
            let reserved = purchases.iter().zip(answers).filter(|(_, answer)| **answer == Answer::Reserved);
            self.sold_out.admitted(product, version, reserved.map(|(purchase, _)| purchase.user_id));
        }
        Ok(admission)
    }
}
