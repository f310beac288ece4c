//! Why a buyer gets nothing.

use std::time::Duration;

use super::{OrderId, Quantity, Timestamp};

/// Why a buyer gets no unit now: one type from the word of the gate's script to the `code` of the reply.
///
/// What else says "no" is about something else. [`super::SaleState`] is what a product shows to those who do not buy;
/// [`super::RejectReason`] is stored with an order that
/// was admitted at a gate and could not be written; nobody was promised it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The sale begins at that time.
    #[error("The sale has not started yet.")]
    NotStarted(Timestamp),
    /// The sale is over.
    #[error("The sale has ended.")]
    Ended,
    /// An administrator has stopped the sale.
    #[error("The sale is paused.")]
    Paused,
    /// The buyer holds a unit under this order: a promise like a 202.
    #[error("You hold a unit of this product already.")]
    AlreadyPurchased(OrderId),
    /// The buyer's last try was too short ago; this one did not extend the wait, whose rest this is.
    #[error("Too many tries.")]
    RateLimited(Duration),
    /// No unit remains.
    #[error("No unit is left.")]
    SoldOut,
    /// Units remain, but fewer than were asked for.
    #[error("Only {0} units remain.")]
    NotEnoughLeft(i64),
    /// Buyers of the same network address have taken what one address may have, but for so many units, which are fewer than were
    /// asked for.
    #[error("Your network address may have {0} units more of this product.")]
    AddressLimit(i64),
    /// An order of this product may have so many units at most.
    #[error("quantity: must be 1 to {0} for this product")]
    TooMany(Quantity),
}

impl Denial {
    /// Stable, machine-readable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotStarted(_) => "not_started",
            Self::Ended => "ended",
            Self::Paused => "paused",
            Self::AlreadyPurchased(_) => "already_purchased",
            Self::RateLimited(_) => "rate_limited",
            Self::SoldOut => "sold_out",
            Self::NotEnoughLeft(_) => "not_enough_left",
            Self::AddressLimit(_) => "address_limit",
            Self::TooMany(_) => "invalid_request",
        }
    }
}
