//! What travels through the queue: versioned, tagged JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::model::{OrderId, ProductId, Purchase, PurchaseGroup, Quantity, Revision, TraceParent};

/// Purchases in one message at most, of all its products.
pub const MAX_PURCHASES_A_MESSAGE: usize = 500;
/// Room for one of them, and for what is before those of a product.
const ITEM_BYTES: usize = 80;
const HEAD_BYTES: usize = 96;
const VERSION: u32 = 1;
/// `kind` of a message.
const PURCHASES: &str = "purchases";
/// Purchases of several products. Not sent while an instance runs that does not read it.
const BUNDLE: &str = "bundle";
const BARRIER: &str = "barrier";

/// What travels through the queue, of one product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessagePart {
    /// Purchases that were admitted.
    Purchases(PurchaseGroup),
    /// Everything before it was admitted by an older gate.
    Barrier(Barrier),
}

impl MessagePart {
    /// What it is about.
    pub fn product_id(&self) -> ProductId {
        match self {
            Self::Purchases(group) => group.product_id,
            Self::Barrier(barrier) => barrier.product_id,
        }
    }
}

/// Marks a place in the queue while the gate of a product is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Barrier {
    /// The product.
    pub product_id: ProductId,
    /// Epoch of the gate that is to be opened.
    pub epoch: i64,
}

/// A message as JSON has it.
#[derive(Deserialize)]
struct Wire<'a> {
    v: u32,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    /// Of a bundle only, which has none of the rest.
    #[serde(borrow)]
    groups: Option<Vec<WireGroup<'a>>>,
    product_id: Option<ProductId>,
    epoch: Option<i64>,
    revision: Option<Revision>,
    items: Option<Vec<Purchase>>,
    #[serde(borrow)]
    traceparents: Option<TraceParents<'a>>,
}

/// What is of one product.
#[derive(Deserialize)]
struct WireGroup<'a> {
    product_id: ProductId,
    epoch: i64,
    /// Of purchases only, and there not in messages of a version that knew no revisions. That version ignores it.
    revision: Option<Revision>,
    /// Of purchases only.
    items: Option<Vec<Purchase>>,
    /// Of purchases that are traced only. A version that knew no traces ignores it.
    #[serde(borrow)]
    traceparents: Option<TraceParents<'a>>,
}

/// The spans that published them, by their orders. Whatever is wrong with these, the purchases are read.
#[derive(Deserialize)]
#[serde(untagged)]
enum TraceParents<'a> {
    #[serde(borrow)]
    Known(BTreeMap<Cow<'a, str>, Cow<'a, str>>),
    Unknown(IgnoredAny),
}

impl TraceParents<'_> {
    fn read(self) -> Vec<(OrderId, TraceParent)> {
        let Self::Known(known) = self else { return Vec::new() };
        let read = |(order, parent): (&Cow<str>, &Cow<str>)| Some((order.parse().ok()?, parent.parse().ok()?));
        known.iter().filter_map(read).collect()
    }
}

/// What is the same in messages of all versions.
#[derive(Deserialize)]
struct Header<'a> {
    v: u32,
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

/// A purchase group as JSON. Every purchase passes here, and nothing needs escaping: written without a serializer.
pub fn encode(group: &PurchaseGroup) -> Vec<u8> {
    let mut json = head(PURCHASES);
    json.push(',');
    push_group(&mut json, group);
    json.push('}');
    json.into_bytes()
}

/// Groups of several products as one message. One alone is a message that every version reads.
pub(super) fn encode_bundle(groups: &[PurchaseGroup]) -> Vec<u8> {
    if let [group] = groups {
        return encode(group);
    }
    let mut json = head(BUNDLE) + r#","groups":["#;
    for (place, group) in groups.iter().enumerate() {
        json.push_str(if place == 0 { "{" } else { ",{" });
        push_group(&mut json, group);
        json.push('}');
    }
    json.push_str("]}");
    json.into_bytes()
}

fn push_group(json: &mut String, group: &PurchaseGroup) {
    let PurchaseGroup { product_id, epoch, revision, items, traced } = group;
    json.reserve(HEAD_BYTES + items.len() * ITEM_BYTES);
    push_product_and_epoch(json, *product_id, *epoch);
    if let Some(revision) = revision {
        json.push_str(r#","revision":"#);
        json.push_str(itoa::Buffer::new().format(i64::from(*revision)));
    }
    json.push_str(r#","items":["#);
    for (place, Purchase { order_id, user_id, quantity }) in items.iter().enumerate() {
        json.push_str(if place == 0 { r#"{"order_id":""# } else { r#",{"order_id":""# });
        json.push_str(order_id.encode(&mut [0; OrderId::LENGTH]));
        json.push_str(r#"","user_id":"#);
        json.push_str(itoa::Buffer::new().format(user_id.get()));
        if *quantity != Quantity::ONE {
            json.push_str(r#","quantity":"#);
            json.push_str(itoa::Buffer::new().format(quantity.get()));
        }
        json.push('}');
    }
    json.push(']');
    for (place, (order_id, parent)) in traced.iter().enumerate() {
        json.push_str(if place == 0 { r#","traceparents":{""# } else { r#",""# });
        json.push_str(order_id.encode(&mut [0; OrderId::LENGTH]));
        let _ = write!(json, r#"":"{parent}""#);
    }
    if !traced.is_empty() {
        json.push('}');
    }
}

/// A barrier as JSON.
pub(super) fn encode_barrier(Barrier { product_id, epoch }: Barrier) -> Vec<u8> {
    let mut json = head(BARRIER);
    json.push(',');
    push_product_and_epoch(&mut json, product_id, epoch);
    json.push('}');
    json.into_bytes()
}

/// What messages of all kinds begin with.
fn head(kind: &str) -> String {
    let mut json = String::with_capacity(HEAD_BYTES);
    let _ = write!(json, r#"{{"v":{VERSION},"kind":"{kind}""#);
    json
}

fn push_product_and_epoch(json: &mut String, product_id: ProductId, epoch: i64) {
    json.push_str(r#""product_id":"#);
    json.push_str(itoa::Buffer::new().format(product_id.get()));
    json.push_str(r#","epoch":"#);
    json.push_str(itoa::Buffer::new().format(epoch));
}

/// A message of one product from JSON; the error says why it is none of ours.
pub fn decode(json: &[u8]) -> Result<MessagePart, String> {
    match <[MessagePart; 1]>::try_from(decode_all(json)?) {
        Ok([message]) => Ok(message),
        Err(several) => Err(format!("a message of {} products", several.len())),
    }
}

/// What is in a message, product by product; the error says why it is none of ours.
pub(super) fn decode_all(json: &[u8]) -> Result<Vec<MessagePart>, String> {
    let wire: Wire = serde_json::from_slice(json).map_err(|error| match serde_json::from_slice(json) {
        Ok(Header { v, kind }) if v != VERSION => unknown(v, &kind),
        _ => error.to_string(),
    })?;
    let Wire { v, kind, groups, product_id, epoch, revision, items, traceparents } = wire;
    if v != VERSION || ![PURCHASES, BUNDLE, BARRIER].contains(&&*kind) {
        return Err(unknown(v, &kind));
    }
    if kind == BUNDLE {
        let groups = groups.unwrap_or_default();
        let purchases = groups.iter().flat_map(|group| &group.items).map(Vec::len).sum::<usize>();
        if groups.len() < 2 || purchases > MAX_PURCHASES_A_MESSAGE {
            return Err(format!("a bundle of {} groups, {purchases} items", groups.len()));
        }
        return groups.into_iter().map(|group| group.purchases().map(MessagePart::Purchases)).collect();
    }
    let product_id = product_id.ok_or("missing field `product_id`")?;
    let epoch = epoch.ok_or("missing field `epoch`")?;
    let group = WireGroup { product_id, epoch, revision, items, traceparents };
    let message = if kind == BARRIER {
        group.check_epoch().map(|()| MessagePart::Barrier(Barrier { product_id, epoch }))
    } else {
        group.purchases().map(MessagePart::Purchases)
    };
    Ok(vec![message?])
}

impl WireGroup<'_> {
    fn check_epoch(&self) -> Result<(), String> {
        if self.epoch < 1 { Err("epoch must be positive".to_owned()) } else { Ok(()) }
    }

    fn purchases(self) -> Result<PurchaseGroup, String> {
        self.check_epoch()?;
        let Self { product_id, epoch, revision, items, traceparents } = self;
        let items = items.unwrap_or_default();
        if !(1..=MAX_PURCHASES_A_MESSAGE).contains(&items.len()) {
            return Err(format!("{} items, not 1 to {MAX_PURCHASES_A_MESSAGE}", items.len()));
        }
        let traced = traceparents.map(TraceParents::read).unwrap_or_default();
        Ok(PurchaseGroup { product_id, epoch, revision, items, traced })
    }
}

fn unknown(v: u32, kind: &str) -> String {
    format!("unknown message: version {v}, kind {kind:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UserId;

    fn group() -> PurchaseGroup {
        let items = (1..=3)
            .map(|user| Purchase {
                order_id: OrderId::draw(7.try_into().unwrap()),
                user_id: UserId::try_from(user).unwrap(),
                quantity: user.try_into().unwrap(),
            })
            .collect();
        PurchaseGroup {
            product_id: 7.try_into().unwrap(),
            epoch: 2,
            revision: Revision::try_from(3).ok(),
            items,
            traced: Vec::new(),
        }
    }

    #[test]
    fn a_message_survives_the_journey() {
        let group = group();
        assert_eq!(decode(&encode(&group)), Ok(MessagePart::Purchases(group)));
        let barrier = Barrier { product_id: 7.try_into().unwrap(), epoch: 2 };
        assert_eq!(decode(&encode_barrier(barrier)), Ok(MessagePart::Barrier(barrier)));
    }

    #[test]
    fn a_bundle_is_taken_apart_into_what_was_put_in() {
        let first = group();
        let order_id = OrderId::draw(8.try_into().unwrap());
        let purchase = Purchase { order_id, user_id: 1_i64.try_into().unwrap(), quantity: Quantity::ONE };
        let parent = TraceParent { trace_id: 7, span_id: 1, sampled: true };
        let second = PurchaseGroup {
            product_id: 8.try_into().unwrap(),
            epoch: 5,
            revision: None,
            items: vec![purchase],
            traced: vec![(order_id, parent)],
        };
        let bundle = encode_bundle(&[first.clone(), second.clone()]);
        assert_eq!(
            decode_all(&bundle),
            Ok(vec![MessagePart::Purchases(first.clone()), MessagePart::Purchases(second)])
        );
        // Who can do with one product only says so instead of forgetting the others.
        assert!(decode(&bundle).is_err());
        assert_eq!(
            encode_bundle(std::slice::from_ref(&first)),
            encode(&first),
            "one alone is what every version reads"
        );
        let text = String::from_utf8(bundle).unwrap();
        for bad in [
            text.replace(r#""epoch":5"#, r#""epoch":0"#),
            text.replace(r#""product_id":8,"#, ""),
            text.replace("groups", "others"),
            text.replace(r#""kind":"bundle""#, r#""kind":"purchases""#),
        ] {
            assert_ne!(bad, text);
            assert!(decode_all(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    /// In both directions: an upgrade goes from instance to instance, and one may be taken back.
    #[test]
    fn messages_of_the_version_before_are_read_and_ours_are_read_by_it() {
        let group = group();
        let ours = String::from_utf8(encode(&group)).unwrap();
        let older =
            ours.replace(r#","revision":3"#, "").replace(r#","quantity":2"#, "").replace(r#","quantity":3"#, "");
        assert_ne!(older, ours);
        let items = group.items.iter().map(|item| Purchase { quantity: Quantity::ONE, ..*item }).collect();
        let expected = PurchaseGroup { revision: None, items, ..group };
        assert_eq!(decode(older.as_bytes()), Ok(MessagePart::Purchases(expected.clone())));
        assert_eq!(encode(&expected), older.into_bytes());
        // What it looks at is the same and in the same place; it ignores what it does not know.
        let unknown = ours.replace(r#""revision":3"#, r#""revision":3,"another":{"a":[1]}"#);
        assert!(decode(unknown.as_bytes()).is_ok());
        assert!(decode(ours.replace(r#""revision":3"#, r#""revision":0"#).as_bytes()).is_err());
    }

    #[test]
    fn spans_travel_with_the_purchases_that_are_traced_and_with_no_others() {
        let plain = group();
        let traced: Vec<_> = [(0, true), (2, true)]
            .into_iter()
            .map(|(place, sampled)| {
                (plain.items[place].order_id, TraceParent { trace_id: 7, span_id: 1 + place as u64, sampled })
            })
            .collect();
        let group = PurchaseGroup { traced, ..plain.clone() };
        let ours = String::from_utf8(encode(&group)).unwrap();
        assert_eq!(decode(ours.as_bytes()), Ok(MessagePart::Purchases(group.clone())));
        let untraced = String::from_utf8(encode(&plain)).unwrap();
        assert!(!untraced.contains("trace"), "{untraced}");
        // What comes before is what a version without traces reads; it ignores the rest.
        assert_eq!(ours.split(r#","traceparents":"#).next(), untraced.strip_suffix('}'));
        // A trace that cannot be read costs nobody an order.
        let (_, span) = group.traced[0];
        let first = span.to_string();
        for wrong in [ours.replace(&first, "00-nonsense"), ours.replace(&format!(r#""{first}""#), "7")] {
            let Ok(MessagePart::Purchases(read)) = decode(wrong.as_bytes()) else { panic!("{wrong} is read") };
            assert_eq!(read.items, plain.items);
            assert!(!read.traced.contains(&group.traced[0]), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_ours_is_told_apart() {
        let order = OrderId::draw(7.try_into().unwrap());
        let item = format!(r#"{{"order_id":"{order}","user_id":1}}"#);
        let message = |v: u32, kind: &str, epoch: i64, items: &str| {
            format!(r#"{{"v":{v},"kind":"{kind}","product_id":7,"epoch":{epoch},"items":[{items}]}}"#)
        };
        assert!(decode(message(1, "purchases", 1, &item).as_bytes()).is_ok());
        let too_many = vec![item.as_str(); MAX_PURCHASES_A_MESSAGE + 1].join(",");
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
            message(1, "purchases", 1, &item.replace(":1", r#":1,"quantity":0"#)),
            message(1, "purchases", 1, &item.replace(":1", r#":1,"quantity":11"#)),
            message(1, "purchases", 1, &item.replace(&order.to_string(), "c0ffee")),
            message(1, "purchases", 1, r#"{"order_id":"6fa459ea-ee8a-4ca4-894e-db77e160355e","user_id":1}"#),
        ] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
