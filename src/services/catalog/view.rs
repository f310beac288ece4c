//! A product as everybody sees it.

use serde::Serialize;

use crate::model::{Product, ProductId, SaleState, Timestamp};
use crate::stock::GateView;

/// A product as everybody sees it.
#[derive(Debug, Serialize)]
pub struct ProductView {
    pub(in crate::services) id: ProductId,
    name: String,
    description: String,
    price_cents: i64,
    revision: i64,
    stock: i64,
    remaining: i64,
    state: SaleState,
    starts_at: Timestamp,
    ends_at: Option<Timestamp>,
    paused: bool,
    created_at: Timestamp,
}

impl ProductView {
    /// `remaining` and `state` are the gate's own. One that is lost or closed cannot say; then the database does.
    pub(in crate::services) fn new(product: Product, gate: Option<GateView>, now: Timestamp) -> Self {
        let (remaining, state) = match gate {
            Some(gate) => (gate.remaining, gate.state),
            None => {
                let remaining = product.stock - product.sold;
                (remaining, product.settings().state(remaining, now))
            }
        };
        Self {
            id: product.id,
            name: product.name,
            description: product.description,
            price_cents: product.price_cents,
            revision: product.ver,
            stock: product.stock,
            remaining,
            state,
            starts_at: product.starts_at,
            ends_at: product.ends_at,
            paused: product.paused,
            created_at: product.created_at,
        }
    }
}
