//! Who takes the money: a variant each. All end in the same callbacks and the same rules; a provider says where buyers pay, and
//! reads what it sends.

mod external;
mod stripe;
mod test;

use super::callback::Read;
use crate::config::{Config, Provider};
use crate::error::Result;
use crate::model::{Currency, Payment, ProviderName, Timestamp};

use self::external::External;
use self::stripe::Stripe;
pub(super) use self::stripe::{Asked, Finding, Item, StripeError};
use self::test::Test;
pub use self::test::TestOutcome;

/// The provider that was configured.
pub(super) enum PaymentProvider {
    /// A page of ours.
    Test(Test),
    /// The shop's own payment service.
    External(External),
    /// Stripe's checkout.
    Stripe(Box<Stripe>),
}

impl PaymentProvider {
    /// `None`: nobody takes money here.
    pub(super) fn new(config: &Config) -> Result<Option<Self>> {
        Ok(match config.provider() {
            Provider::None => None,
            Provider::Test => Some(Self::Test(Test::new(&config.auth.jwt_secret))),
            Provider::External => Some(Self::External(External::new(&config.payments)?)),
            Provider::Stripe => Some(Self::Stripe(Box::new(Stripe::new(&config.payments)?))),
        })
    }

    /// Its name.
    pub(super) fn name(&self) -> ProviderName {
        match self {
            Self::Test(_) => ProviderName::Test,
            Self::External(_) => ProviderName::External,
            Self::Stripe(_) => ProviderName::Stripe,
        }
    }

    /// Where the buyer pays; `None`: it is not known yet.
    pub(super) fn redirect_url(&self, payment: &Payment, currency: Currency) -> Option<String> {
        match self {
            Self::Test(test) => Some(test.redirect_url(payment)),
            Self::External(external) => Some(external.redirect_url(payment, currency)),
            Self::Stripe(_) => payment.redirect_url.clone(),
        }
    }

    /// When to ask what became of a payment that begins now, if nothing was heard: at the latest when nobody is to pay any more,
    /// which is at `last`. `None`: this provider is not asked.
    pub(super) fn asks_at(&self, last: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Test(_) | Self::External(_) => None,
            Self::Stripe(_) => Some(Stripe::asks_at(last, now)),
        }
    }

    /// Reads a callback, if it is the provider's. `header` finds a header by its name.
    pub(super) fn read<'h>(
        &self,
        header: impl Fn(&str) -> Option<&'h str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Read> {
        let key = match self {
            Self::Test(test) => test.key(),
            Self::External(external) => external.key(),
            Self::Stripe(stripe) => return stripe.read(header, body, now),
        };
        super::callback::read(key.verify(header, body, now)?, body)
    }
}
