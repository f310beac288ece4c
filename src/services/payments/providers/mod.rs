//! Who takes the money: a variant each. All end in the same callbacks and the same rules; a provider says where buyers pay, and
//! reads what it sends.

mod external;
mod test;

use super::callback::Read;
use crate::config::{Config, Provider};
use crate::error::Result;
use crate::model::{Currency, Payment, ProviderName, Timestamp};

use self::external::External;
use self::test::Test;
pub use self::test::TestOutcome;

/// The provider that was configured.
pub(super) enum PaymentProvider {
    /// A page of ours.
    Test(Test),
    /// The shop's own payment service.
    External(External),
}

impl PaymentProvider {
    /// `None`: nobody takes money here.
    pub(super) fn new(config: &Config) -> Result<Option<Self>> {
        Ok(match config.provider() {
            Provider::None => None,
            Provider::Test => Some(Self::Test(Test::new(&config.auth.jwt_secret))),
            Provider::External => Some(Self::External(External::new(&config.payments)?)),
        })
    }

    /// Its name.
    pub(super) fn name(&self) -> ProviderName {
        match self {
            Self::Test(_) => ProviderName::Test,
            Self::External(_) => ProviderName::External,
        }
    }

    /// Where the buyer pays.
    pub(super) fn redirect_url(&self, payment: &Payment, currency: Currency) -> String {
        match self {
            Self::Test(test) => test.redirect_url(payment),
            Self::External(external) => external.redirect_url(payment, currency),
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
        };
        super::callback::read(key.verify(header, body, now)?, body)
    }
}
