//! Payments as they are shown.

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::{Currency, OrderId, OrderStatus, Payment, PaymentId, PaymentStatus, ProviderName, Timestamp};

/// A payment as its buyer sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Payment)]
pub struct PaymentView {
    /// Its id.
    pub id: PaymentId,
    /// What it pays for.
    pub order_id: OrderId,
    pub(in crate::services) provider: ProviderName,
    /// Where it stands.
    pub status: PaymentStatus,
    /// How much, in minor units.
    pub amount_cents: i64,
    /// Of what.
    pub currency: Currency,
    #[schema(required)]
    pub(in crate::services) reference: Option<String>,
    /// Where the buyer pays; `null`: not any more.
    #[schema(required)]
    redirect_url: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl PaymentView {
    pub(in crate::services) fn of(payment: Payment, currency: Currency, redirect_url: Option<String>) -> Self {
        Self {
            id: payment.id,
            order_id: payment.order_id,
            provider: payment.provider,
            status: payment.status,
            amount_cents: payment.amount_cents,
            currency,
            reference: payment.reference,
            redirect_url,
            created_at: payment.created_at,
            updated_at: payment.updated_at,
        }
    }
}

/// What the test provider's page shows.
#[derive(Debug)]
pub struct TestPage {
    /// What is paid for.
    pub product: String,
    /// Where the order stands.
    pub order: OrderStatus,
    /// The payment.
    pub payment: PaymentView,
}
