//! What travels through the queue: versioned, tagged JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Barrier, Message};
use crate::model::{ProductId, Purchase, PurchaseBatch};

/// Purchases in one message at most.
pub const BATCH_MAX: usize = 500;
const VERSION: u32 = 1;
/// `kind` of a message.
const PURCHASES: &str = "purchases";
const BARRIER: &str = "barrier";

/// A batch as JSON has it.
#[derive(Serialize, Deserialize)]
struct PurchasesWire<'a> {
    v: u32,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    product_id: ProductId,
    epoch: i64,
    #[serde(bound(deserialize = ""))]
    items: Cow<'a, [Purchase]>,
}

/// A barrier as JSON has it.
#[derive(Serialize, Deserialize)]
struct BarrierWire<'a> {
    v: u32,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    product_id: ProductId,
    epoch: i64,
}

/// Only what says how to read the rest.
#[derive(Deserialize)]
struct Header<'a> {
    v: u32,
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

/// A batch as JSON.
pub fn encode(batch: &PurchaseBatch) -> Vec<u8> {
    json(&PurchasesWire {
        v: VERSION,
        kind: Cow::Borrowed(PURCHASES),
        product_id: batch.product_id,
        epoch: batch.epoch,
        items: Cow::Borrowed(&batch.items),
    })
}

/// A barrier as JSON.
pub(super) fn encode_barrier(barrier: Barrier) -> Vec<u8> {
    let Barrier { product_id, epoch } = barrier;
    json(&BarrierWire { v: VERSION, kind: Cow::Borrowed(BARRIER), product_id, epoch })
}

fn json(wire: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(wire).expect("ids and numbers always have a JSON form")
}

/// A message from JSON; the error says why it is none of ours.
pub fn decode(json: &[u8]) -> Result<Message, String> {
    let header: Header<'_> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if header.v != VERSION {
        return Err(format!("unknown message: version {}, kind {:?}", header.v, header.kind));
    }
    match header.kind.as_ref() {
        PURCHASES => decode_purchases(json).map(Message::Purchases),
        BARRIER => {
            let wire: BarrierWire<'_> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
            Ok(Message::Barrier(Barrier { product_id: wire.product_id, epoch: checked(wire.epoch)? }))
        }
        kind => Err(format!("unknown message: kind {kind:?}")),
    }
}

fn decode_purchases(json: &[u8]) -> Result<PurchaseBatch, String> {
    let wire: PurchasesWire<'_> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if !(1..=BATCH_MAX).contains(&wire.items.len()) {
        return Err(format!("{} items, not 1 to {BATCH_MAX}", wire.items.len()));
    }
    Ok(PurchaseBatch { product_id: wire.product_id, epoch: checked(wire.epoch)?, items: wire.items.into_owned() })
}

fn checked(epoch: i64) -> Result<i64, String> {
    if epoch < 1 { Err("epoch must be positive".to_owned()) } else { Ok(epoch) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OrderId, UserId};

    fn batch() -> PurchaseBatch {
        let items = (1..=3)
            .map(|user| Purchase { order_id: OrderId::draw(), user_id: UserId::try_from(user).unwrap() })
            .collect();
        PurchaseBatch { product_id: 7.try_into().unwrap(), epoch: 2, items }
    }

    #[test]
    fn a_message_survives_the_journey() {
        let batch = batch();
        assert_eq!(decode(&encode(&batch)), Ok(Message::Purchases(batch)));
        let barrier = Barrier { product_id: 7.try_into().unwrap(), epoch: 2 };
        assert_eq!(decode(&encode_barrier(barrier)), Ok(Message::Barrier(barrier)));
    }

    #[test]
    fn what_is_not_ours_is_told_apart() {
        let order = OrderId::draw();
        let item = format!(r#"{{"order_id":"{order}","user_id":1}}"#);
        let message = |v: u32, kind: &str, epoch: i64, items: &str| {
            format!(r#"{{"v":{v},"kind":"{kind}","product_id":7,"epoch":{epoch},"items":[{items}]}}"#)
        };
        assert!(decode(message(1, "purchases", 1, &item).as_bytes()).is_ok());
        let too_many = vec![item.as_str(); BATCH_MAX + 1].join(",");
        for bad in [
            "not json".to_owned(),
            "{}".to_owned(),
            message(2, "purchases", 1, &item),
            message(1, "refunds", 1, &item),
            message(1, "purchases", 0, &item),
            message(1, "barrier", 0, ""),
            message(1, "purchases", 1, ""),
            message(1, "purchases", 1, &too_many),
            message(1, "purchases", 1, &item.replace(":1", ":0")),
            message(1, "purchases", 1, &item.replace(&order.to_string(), "c0ffee")),
            message(1, "purchases", 1, r#"{"order_id":"6fa459ea-ee8a-4ca4-894e-db77e160355e","user_id":1}"#),
        ] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
