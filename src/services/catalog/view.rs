//! A product as everybody sees it.

use serde::Serialize;
use utoipa::ToSchema;

use super::page_cache::Timed;
use crate::model::{AddressLimit, Currency, PaymentWindow, Product, ProductId, Quantity, SaleState, Timestamp};
use crate::services::page::Page;
use crate::stock::GateView;

/// A product as everybody sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Product)]
pub struct ProductView {
    pub(in crate::services) id: ProductId,
    name: String,
    description: String,
    price_cents: i64,
    currency: Currency,
    #[schema(required)]
    payment_window_seconds: Option<PaymentWindow>,
    max_per_order: Quantity,
    /// Units that buyers of one network address may take in all; `null`: as many as there are.
    #[schema(required)]
    max_per_address: Option<AddressLimit>,
    #[schema(required)]
    image_url: Option<String>,
    pub(in crate::services) revision: i64,
    pub(in crate::services) stock: i64,
    pub(in crate::services) remaining: i64,
    /// Units of unpaid orders: they may come back.
    pub(in crate::services) held: i64,
    pub(in crate::services) state: SaleState,
    pub(in crate::services) starts_at: Timestamp,
    #[schema(required)]
    pub(in crate::services) ends_at: Option<Timestamp>,
    paused: bool,
    #[schema(required)]
    pub(in crate::services) sold_out_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archived_at: Option<Timestamp>,
    /// Only administrators see it.
    #[schema(required = false)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) draft: bool,
    created_at: Timestamp,
    /// By the clock that opens sales.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_time: Option<Timestamp>,
}

impl Timed for ProductView {
    fn rendered_at(&mut self, now: Timestamp) {
        self.server_time = Some(now);
    }
}

impl Timed for Page<ProductView> {
    fn rendered_at(&mut self, now: Timestamp) {
        self.items.iter_mut().for_each(|product| product.rendered_at(now));
    }
}

impl ProductView {
    /// `remaining` and `state` are the gate's own. One that is lost or closed cannot say; then the database does.
    pub(in crate::services) fn new(product: Product, gate: Option<GateView>, now: Timestamp, shop: Currency) -> Self {
        let (remaining, state) = match gate {
            Some(gate) => (gate.remaining, gate.state),
            None => {
                let remaining = (product.stock - product.sold).max(0);
                (remaining, product.settings().state(remaining, now))
            }
        };
        Self {
            id: product.id,
            name: product.name,
            description: product.description,
            price_cents: product.price_cents,
            currency: product.currency.unwrap_or(shop),
            payment_window_seconds: product.payment_window,
            max_per_order: product.max_per_order,
            max_per_address: product.max_per_address,
            image_url: product.image_url,
            revision: product.revision,
            stock: product.stock,
            remaining,
            held: product.sold - product.paid_units,
            state,
            starts_at: product.starts_at,
            ends_at: product.ends_at,
            paused: product.paused,
            sold_out_at: product.sold_out_at,
            archived_at: product.archived_at,
            draft: product.draft,
            created_at: product.created_at,
            server_time: None,
        }
    }

    /// As it is shown at that moment.
    pub(in crate::services) fn at(mut self, time: Timestamp) -> Self {
        self.server_time = Some(time);
        self
    }

    /// As it is shown when the gate has no unit left, which the database learns a moment later.
    pub(in crate::services) fn sold_out(mut self) -> Self {
        self.remaining = 0;
        if self.state == SaleState::Live {
            self.state = SaleState::SoldOut;
        }
        self
    }
}
