//! Late payments: units for a dead order whose money has come.

use deadpool_redis::redis::Value;

use super::gate::RedisGate;
use super::mark;
use super::replies::{parse_payment_admission, status};
use crate::model::{LatePayment, ProductId};
use crate::stock::types::{GateError, PaymentAdmission};

impl RedisGate {
    pub(in crate::stock) async fn admit_payment(
        &self,
        product: ProductId,
        late: &LatePayment,
    ) -> Result<PaymentAdmission, GateError> {
        let server = &self.server;
        let (mut own, mut first) = (String::new(), String::new());
        mark::push_life(&mut own, &late.life());
        mark::push(&mut first, &late.purchase);
        let keys = server.keys.of_sale(product);
        let reply: Vec<Value> = server
            .invoke(product, &server.scripts.admit_payment, &keys, |link, call| {
                call.arg(&link.server_id).arg(late.purchase.user_id.get()).arg(&own).arg(&first);
                call.arg(late.call.to_string());
            })
            .await?;
        parse_payment_admission(reply).map_err(|error| server.unreadable(product, error))
    }

    pub(in crate::stock) async fn mark_revived(
        &self,
        product: ProductId,
        epoch: i64,
        late: &LatePayment,
    ) -> Result<(), GateError> {
        let server = &self.server;
        let keys = [server.keys.gate(product), server.keys.flight(product)];
        let reply: String = server
            .invoke(product, &server.scripts.mark_revived, &keys, |link, call| {
                call.arg(&link.server_id).arg(epoch).arg(mark::late_in_flight(late));
            })
            .await?;
        status(&reply)
    }
}
