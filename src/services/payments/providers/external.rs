//! The shop's own payment service. It has an address where buyers pay, and signs what it tells.

use secrecy::ExposeSecret;

use crate::config::{CheckoutUrl, Payments, webhook_key};
use crate::error::{Error, Result};
use crate::model::{Currency, Payment};
use crate::services::standard_webhooks::WebhookKey;

/// See the module.
pub(in crate::services::payments) struct External {
    key: WebhookKey,
    checkout: CheckoutUrl,
}

impl External {
    /// As it is configured, which was checked.
    pub(super) fn new(settings: &Payments) -> Result<Self> {
        let key =
            webhook_key(settings.webhook_secret.expose_secret()).map_err(|error| Error::Internal(error.to_owned()))?;
        let checkout = CheckoutUrl::parse(&settings.checkout_url).map_err(Error::Internal)?;
        Ok(Self { key: WebhookKey::new(&key), checkout })
    }

    pub(super) fn key(&self) -> &WebhookKey {
        &self.key
    }

    pub(super) fn redirect_url(&self, payment: &Payment, currency: Currency) -> String {
        let (id, order) = (payment.id.to_string(), payment.order_id.to_string());
        self.checkout.fill([&id, &order, &payment.amount_cents.to_string(), currency.code()])
    }
}
