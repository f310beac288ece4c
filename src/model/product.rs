//! Products and the state of their sale.

use std::fmt;
use std::num::NonZeroU32;

use diesel::prelude::Queryable;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AddressLimit, AtLeastZero, Currency, Denial, PaymentWindow, ProductId, Quantity, Terms, Timestamp};

/// A product's row. An event keeps it as JSON, which a later version reads: a field that is added has a default.
#[derive(Debug, Clone, Queryable, Serialize, Deserialize)]
pub struct Product {
    /// Its id.
    pub id: ProductId,
    /// Shown to buyers.
    pub name: String,
    /// Shown to buyers.
    pub description: String,
    /// Price in minor units.
    #[diesel(deserialize_as = AtLeastZero)]
    pub price_cents: i64,
    /// Units that are offered in all: what the sale was given, less what was withheld since.
    pub stock: i64,
    /// Units that live orders hold.
    pub sold: i64,
    /// Those of them that are paid for.
    pub paid_units: i64,
    /// When buying begins.
    pub starts_at: Timestamp,
    /// When buying ends; `None`: open-ended.
    pub ends_at: Option<Timestamp>,
    /// Buying is paused.
    pub paused: bool,
    /// Number of its revision: counts the changes; the gate takes only newer ones.
    #[serde(rename = "ver")]
    pub revision: i64,
    /// Epoch of the gate that may sell.
    pub gate_epoch: i64,
    /// Orders admitted by a gate of an older epoch come too late.
    pub gate_fence: i64,
    /// The sale had ended and its gate was retired: nothing of it is on its way.
    pub retired: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Of its price; `None`: made before products had one, the shop's own.
    pub currency: Option<Currency>,
    /// How long an order may stay unpaid.
    pub payment_window: Option<PaymentWindow>,
    /// Units that one order may have at most.
    pub max_per_order: Quantity,
    /// A picture.
    pub image_url: Option<String>,
    /// When the last unit was sold; `None` while there are some.
    pub sold_out_at: Option<Timestamp>,
    /// When it was taken out of the lists, for good.
    pub archived_at: Option<Timestamp>,
    /// Only administrators see it. It is paused until it is published.
    #[serde(default)]
    pub draft: bool,
    /// Units that buyers of one network address may take in all.
    #[serde(default)]
    pub max_per_address: Option<AddressLimit>,
}

impl Product {
    /// What the gate needs to know.
    pub fn settings(&self) -> SaleSettings {
        self.sale().settings()
    }

    /// What background work needs to know.
    pub fn sale(&self) -> Sale {
        Sale {
            id: self.id,
            stock: self.stock,
            sold: self.sold,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            paused: self.paused,
            revision: self.revision,
            gate_epoch: self.gate_epoch,
            retired: self.retired,
            price_cents: self.price_cents,
            payment_window: self.payment_window,
            max_per_order: self.max_per_order,
            max_per_address: self.max_per_address,
            sold_out_at: self.sold_out_at,
        }
    }
}

/// A product's row without its texts, which can be long: what is read again and again in the background.
#[derive(Debug, Clone, Copy, Queryable)]
pub struct Sale {
    /// The product's id.
    pub id: ProductId,
    /// Units that are offered in all.
    pub stock: i64,
    /// Units that live orders hold.
    pub sold: i64,
    /// When buying begins.
    pub starts_at: Timestamp,
    /// When buying ends; `None`: open-ended.
    pub ends_at: Option<Timestamp>,
    /// Buying is paused.
    pub paused: bool,
    /// Number of the product's revision, which each change counts up.
    pub revision: i64,
    /// Epoch of the gate that may sell.
    pub gate_epoch: i64,
    /// The sale had ended and its gate was retired: nothing of it is on its way.
    pub retired: bool,
    /// Price in minor units.
    #[diesel(deserialize_as = AtLeastZero)]
    pub price_cents: i64,
    /// How long an order may stay unpaid.
    pub payment_window: Option<PaymentWindow>,
    /// Units that one order may have at most.
    pub max_per_order: Quantity,
    /// Units that buyers of one network address may take in all.
    pub max_per_address: Option<AddressLimit>,
    /// When the last unit was sold; `None` while there are some.
    pub sold_out_at: Option<Timestamp>,
}

impl Sale {
    /// What the gate needs to know.
    pub fn settings(&self) -> SaleSettings {
        SaleSettings {
            revision: self.revision,
            stock: self.stock,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            paused: self.paused,
            terms: Some(Terms {
                price_cents: self.price_cents,
                payment_window: self.payment_window,
                max_per_order: self.max_per_order,
                max_per_address: self.max_per_address,
            }),
        }
    }

    /// Whether buying was over at that time.
    pub fn had_ended(&self, by: Timestamp) -> bool {
        self.ends_at.is_some_and(|end| end <= by)
    }
}

/// Number of a state that a product has had: 1, then one more with each change. Small, for the gate in memory keeps one with
/// each unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "i64")]
pub struct Revision(NonZeroU32);

impl Revision {
    /// That of a new product.
    pub const FIRST: Self = Self(NonZeroU32::MIN);
}

impl TryFrom<i64> for Revision {
    type Error = &'static str;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        let number = u32::try_from(number).ok().and_then(NonZeroU32::new);
        number.map(Self).ok_or("must be 1 to 4294967295")
    }
}

impl From<Revision> for i64 {
    fn from(Revision(number): Revision) -> Self {
        number.get().into()
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The part of a product that decides whether a unit may be sold now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaleSettings {
    /// Number of the product's revision that they belong to.
    pub revision: i64,
    /// Units that are offered, in all.
    pub stock: i64,
    /// When buying begins.
    pub starts_at: Timestamp,
    /// When buying ends.
    pub ends_at: Option<Timestamp>,
    /// Buying is paused.
    pub paused: bool,
    /// What binds for who buys under them; `None`: a gate that a program without terms has opened does not know.
    pub terms: Option<Terms>,
}

impl SaleSettings {
    /// The product's revision that they belong to. No product is changed four billion times.
    pub fn revision(&self) -> Revision {
        Revision::try_from(self.revision).unwrap_or(Revision(NonZeroU32::MAX))
    }

    /// The state at `now` with so many units `remaining`. Window before pause before stock, as for a purchase.
    pub fn state(&self, remaining: i64, now: Timestamp) -> SaleState {
        if now < self.starts_at {
            SaleState::Upcoming
        } else if self.ends_at.is_some_and(|end| now >= end) {
            SaleState::Ended
        } else if self.paused {
            SaleState::Paused
        } else if remaining == 0 {
            SaleState::SoldOut
        } else {
            SaleState::Live
        }
    }

    /// Why nobody may buy at `now` with so many units `remaining`. A buyer may still have a reason of their own.
    pub fn denial(&self, remaining: i64, now: Timestamp) -> Option<Denial> {
        match self.state(remaining, now) {
            SaleState::Live => None,
            SaleState::Upcoming => Some(Denial::NotStarted(self.starts_at)),
            SaleState::Ended => Some(Denial::Ended),
            SaleState::Paused => Some(Denial::Paused),
            SaleState::SoldOut => Some(Denial::SoldOut),
        }
    }
}

/// Whether a product can be bought now, as it is shown with the product.
// What a buyer gets instead of a unit is a `Denial`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SaleState {
    /// Not yet.
    Upcoming,
    /// Yes.
    Live,
    /// All units are taken; one may come back.
    SoldOut,
    /// No more.
    Ended,
    /// Stopped by an administrator.
    Paused,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against: a field with another name, by which the events that are kept cannot be read any more.
    #[test]
    fn a_product_is_kept_under_the_names_that_it_always_had() {
        let kept = serde_json::json!({
            "id": 7, "name": "Lamp", "description": "", "price_cents": 5, "stock": 3, "sold": 2, "paid_units": 1,
            "starts_at": "2026-11-29T12:00:00.000Z", "ends_at": null, "paused": false, "ver": 4, "gate_epoch": 1, "gate_fence": 1,
            "retired": false, "created_at": "2026-11-29T12:00:00.000Z", "currency": "EUR", "payment_window": 900,
            "max_per_order": 1, "image_url": null, "sold_out_at": null, "archived_at": null, "draft": false,
            "max_per_address": 5,
        });
        let product: Product = serde_json::from_value(kept.clone()).unwrap();
        assert_eq!(product.revision, 4);
        assert_eq!(serde_json::to_value(product).unwrap(), kept);
        let mut older = kept;
        for added in ["draft", "max_per_address"] {
            older.as_object_mut().unwrap().remove(added).unwrap();
        }
        let older: Product = serde_json::from_value(older).unwrap();
        assert!(!older.draft && older.max_per_address.is_none());
    }
}
