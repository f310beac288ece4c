//! Who takes the money: what makes its settings invalid.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use url::Url;

use super::checks::{ConfigError, invalid, is_loopback};
use super::schema::{Config, Provider};
use super::warnings::is_this_machine;
use crate::model::PaymentWindow;

/// What a key of Standard Webhooks begins with.
const KEY_PREFIX: &str = "whsec_";
/// As Standard Webhooks has it.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// What a template may name.
const PLACEHOLDERS: [&str; 4] = ["payment_id", "order_id", "amount_cents", "currency"];

impl Config {
    /// Who takes the money here: the test provider only where nobody else comes, or where that is wanted.
    pub fn provider(&self) -> Provider {
        match self.payments.provider {
            Provider::Test if !self.payments.allow_test && !self.is_private() => Provider::None,
            provider => provider,
        }
    }

    /// How long an order may stay unpaid, of new products that do not say so: for ever where nobody takes money.
    pub fn payment_window(&self) -> Option<PaymentWindow> {
        (self.provider() != Provider::None).then_some(self.orders.payment_window_seconds)
    }

    /// Whether this machine alone can connect, to each of our ports.
    pub(super) fn is_private(&self) -> bool {
        self.reached_at().is_none()
    }

    /// Where others can connect.
    fn reached_at(&self) -> Option<&str> {
        let admin_host = self.server.for_admins().map(|(host, _)| host);
        [Some(self.server.host.as_str()), admin_host].into_iter().flatten().find(|host| !is_this_machine(host))
    }

    pub(super) fn payment_warning(&self) -> Option<String> {
        let counts_as_none = self.payments.provider == Provider::Test && self.provider() == Provider::None;
        counts_as_none.then(|| {
            let host = self.reached_at().unwrap_or_default();
            format!(
                "payments.provider: test counts as none, for others can reach {host} and would \"pay\"; set \
                 external or none, or allow_test: true where nothing is really sold"
            )
        })
    }

    /// Only what is used is looked at.
    pub(super) fn validate_payments(&self) -> Result<(), ConfigError> {
        match self.payments.provider {
            Provider::None | Provider::Test => Ok(()),
            Provider::External => self.validate_external(),
            Provider::Stripe => self.validate_stripe(),
        }
    }

    fn validate_external(&self) -> Result<(), ConfigError> {
        let (secret, url) = (self.payments.webhook_secret.expose_secret(), &self.payments.checkout_url);
        let (secret_key, url_key) = ("payments.webhook_secret", "payments.checkout_url");
        if secret.is_empty() {
            let problem = "is missing; payments.provider: external needs it: echo \"whsec_$(openssl rand -base64 32)\"";
            return Err(invalid(secret_key, problem));
        }
        webhook_key(secret).map_err(|problem| invalid(secret_key, problem))?;
        if url.is_empty() {
            let problem = "is missing; payments.provider: external needs the address where buyers pay";
            return Err(invalid(url_key, problem));
        }
        CheckoutUrl::parse(url).map(|_| ()).map_err(|problem| invalid(url_key, problem))
    }

    fn validate_stripe(&self) -> Result<(), ConfigError> {
        let stripe = &self.payments.stripe;
        // A key in the place of another is the usual mistake: their beginnings tell them apart.
        for (key, secret, beginnings, what) in [
            (
                "payments.stripe.secret_key",
                &stripe.secret_key,
                &["sk_", "rk_"][..],
                "sk_... or rk_..., of the API keys",
            ),
            (
                "payments.stripe.webhook_secret",
                &stripe.webhook_secret,
                &[KEY_PREFIX],
                "whsec_..., of the webhook endpoint",
            ),
        ] {
            let secret = secret.expose_secret();
            if secret.is_empty() {
                return Err(invalid(key, format!("is missing; payments.provider: stripe needs it: {what} at Stripe")));
            }
            let begins =
                beginnings.iter().any(|beginning| secret.strip_prefix(beginning).is_some_and(|rest| !rest.is_empty()));
            if !begins || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(invalid(key, format!("must be {what} at Stripe")));
            }
        }
        let base_key = "payments.stripe.api_base";
        match Url::parse(&stripe.api_base).ok().filter(Url::has_host) {
            Some(url) if url.query().is_some() || url.fragment().is_some() || stripe.api_base.ends_with('/') => {
                Err(invalid(base_key, "must be as https://api.stripe.com, with nothing after it"))
            }
            Some(url) if url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url) => Ok(()),
            _ => Err(invalid(base_key, "must begin with https:// (http:// only to this machine)")),
        }?;
        let return_key = "payments.stripe.return_url";
        if stripe.return_url.is_empty() {
            let problem =
                "is missing; payments.provider: stripe needs the address of the shop where buyers come back to";
            return Err(invalid(return_key, problem));
        }
        CheckoutUrl::parse(&stripe.return_url).map(|_| ()).map_err(|problem| invalid(return_key, problem))
    }
}

/// The key that `whsec_...` stands for.
pub fn webhook_key(secret: &str) -> Result<Vec<u8>, &'static str> {
    const PROBLEM: &str = "must be whsec_ and the base64 of 24 to 64 bytes";
    let key = secret.strip_prefix(KEY_PREFIX).and_then(|text| STANDARD.decode(text).ok());
    key.filter(|key| KEY_BYTES.contains(&key.len())).ok_or(PROBLEM)
}

/// Where buyers are sent: a template.
#[derive(Debug, Clone)]
pub struct CheckoutUrl(String);

impl CheckoutUrl {
    /// An address with nothing in braces but what can be put there.
    pub fn parse(template: &str) -> Result<Self, String> {
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, tail)) = after.split_once('}') else { return Err("has a { without a }".to_owned()) };
            if before.contains('}') {
                break;
            }
            if !PLACEHOLDERS.contains(&name) {
                let known = PLACEHOLDERS.map(|name| format!("{{{name}}}")).join(", ");
                return Err(format!("names {{{name}}}; it may name {known}"));
            }
            rest = tail;
        }
        if rest.contains('}') {
            return Err("has a } without a {".to_owned());
        }
        let filled = Self(template.to_owned());
        let url = Url::parse(&filled.fill(["0", "0", "0", "XXX"])).ok().filter(Url::has_host);
        match url {
            Some(url) if url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url) => Ok(filled),
            _ => Err("must be an address that begins with https:// (http:// only to this machine)".to_owned()),
        }
    }

    /// The address for these, in the order of payment, order, amount and currency.
    pub fn fill(&self, values: [&str; 4]) -> String {
        let fill = |url: String, (name, value): (&str, &str)| url.replace(&format!("{{{name}}}"), value);
        PLACEHOLDERS.into_iter().zip(values).fold(self.0.clone(), fill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_as_standard_webhooks_writes_it() {
        let written = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert_eq!(webhook_key(&written(32)), Ok(vec![7; 32]));
        assert!(webhook_key(&written(24)).is_ok() && webhook_key(&written(64)).is_ok());
        for bad in [written(23), written(65), "whsec_".to_owned(), "whsec_%%%".to_owned(), STANDARD.encode([7; 32])] {
            assert!(webhook_key(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_template_names_only_what_there_is() {
        let url = CheckoutUrl::parse("https://pay.example/{order_id}?p={payment_id}&a={amount_cents}&c={currency}");
        let filled = url.unwrap().fill(["p1", "o1", "1990", "EUR"]);
        assert_eq!(filled, "https://pay.example/o1?p=p1&a=1990&c=EUR");
        for good in ["http://127.0.0.1:8000/{payment_id}", "http://localhost/", "https://pay.example"] {
            assert!(CheckoutUrl::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "http://pay.example/{payment_id}",
            "ftp://pay.example/",
            "/pay/{payment_id}",
            "https://pay.example/{payment}",
            "https://pay.example/{payment_id",
            "https://pay.example/payment_id}",
            "https://pay.example/}{payment_id}",
            "javascript:alert(1)",
        ] {
            let parsed = CheckoutUrl::parse(bad);
            assert!(parsed.is_err(), "{bad}");
        }
    }
}
