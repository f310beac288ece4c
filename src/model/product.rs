//! Products and the state of their sale.

use diesel::prelude::Queryable;
use serde::{Deserialize, Serialize};

use super::{ProductId, Timestamp};

/// A product's row.
#[derive(Debug, Clone, Queryable)]
pub struct Product {
    /// Its id.
    pub id: ProductId,
    /// Shown to buyers.
    pub name: String,
    /// Shown to buyers.
    pub description: String,
    /// Price in minor units.
    pub price_cents: i64,
    /// Units the sale was given in all.
    pub stock: i64,
    /// Units that live orders hold; `0 <= sold <= stock` (I1).
    pub sold: i64,
    /// When buying begins.
    pub starts_at: Timestamp,
    /// When buying ends; `None`: open-ended.
    pub ends_at: Option<Timestamp>,
    /// Buying is paused.
    pub paused: bool,
    /// Counts the changes of stock, window and pause; the gate takes only newer ones.
    pub ver: i64,
    /// Epoch of the gate that may sell.
    pub gate_epoch: i64,
    /// Orders admitted by a gate of an older epoch come too late.
    pub gate_fence: i64,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Product {
    /// What the gate needs to know.
    pub fn terms(&self) -> SaleTerms {
        SaleTerms {
            ver: self.ver,
            stock: self.stock,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            paused: self.paused,
        }
    }
}

/// The part of a product that decides whether a unit may be sold now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaleTerms {
    /// Version of the other fields.
    pub ver: i64,
    /// Units in all.
    pub stock: i64,
    /// When buying begins.
    pub starts_at: Timestamp,
    /// When buying ends.
    pub ends_at: Option<Timestamp>,
    /// Buying is paused.
    pub paused: bool,
}

impl SaleTerms {
    /// The state at `now` with `remaining` units left. Window before pause before stock, as for a purchase.
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
}

/// Whether a product can be bought now, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
