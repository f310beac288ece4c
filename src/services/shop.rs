//! What the pages must know of the shop before anybody has logged in.

use serde::Serialize;
use utoipa::ToSchema;

use crate::config::{Config, Provider, Registration, Users};
use crate::model::{Currency, PaymentWindow};

/// The part of the configuration that everybody may read.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ShopSettings {
    name: String,
    time_zone: String,
    currency: Currency,
    users: &'static str,
    registration: &'static str,
    payments: &'static str,
    #[schema(required)]
    payment_window_seconds: Option<PaymentWindow>,
}

impl ShopSettings {
    /// Of this configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            name: config.shop.name.clone(),
            time_zone: config.shop.time_zone.clone(),
            currency: config.shop.currency,
            users: match config.auth.users {
                Users::Local => "local",
                Users::External => "external",
            },
            registration: match config.auth.registration {
                Registration::Open => "open",
                Registration::Closed => "closed",
            },
            payments: match config.provider() {
                Provider::None => "none",
                Provider::Test => "test",
                Provider::External => "external",
                Provider::Stripe => "stripe",
            },
            payment_window_seconds: config.payment_window(),
        }
    }
}
