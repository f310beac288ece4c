//! What can be configured: sections, keys, and how their values are written.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use super::servers::{MySql, RabbitMq, Redis};
use crate::model::{Currency, Networks, PaymentWindow, TrustedProxies};

/// `iss` of the tokens that we issue.
pub const OWN_ISSUER: &str = "seckill";
/// Everything that can be configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which stores the sale runs on.
    pub backend: Backend,
    /// The HTTP server.
    pub server: Server,
    /// Embedded backend: where it keeps its data.
    pub embedded: Embedded,
    /// Distributed backend: the database.
    pub mysql: MySql,
    /// Distributed backend: the gate's store.
    pub redis: Redis,
    /// Distributed backend: the queue.
    pub rabbitmq: RabbitMq,
    /// Tokens and password hashes.
    pub auth: Auth,
    /// The first administrator.
    pub admin: Admin,
    /// Limits against abuse.
    pub limits: Limits,
    /// The shop.
    pub shop: Shop,
    /// Orders.
    pub orders: Orders,
    /// Who takes the money.
    pub payments: Payments,
    /// What the shop is told.
    pub webhooks: Webhooks,
    /// Traces.
    pub traces: Traces,
    /// The log.
    pub log: Log,
    /// What the operator set that the backend does not use.
    #[serde(skip)]
    pub(super) unused: Option<&'static str>,
}

/// Which stores the sale runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Everything in this process, its data in one folder.
    Embedded,
    /// MySQL, Redis and RabbitMQ.
    Distributed,
}

/// `server`: where HTTP is served.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Address to listen on.
    pub host: String,
    /// TCP port; 0 takes any free one.
    pub port: u16,
    /// TCP port of its own for the console, the merchant's paths and `/metrics`; 0: they are served with the rest.
    pub admin_port: u16,
    /// Address of that port; empty: `host`.
    pub admin_host: String,
    /// Threads that serve HTTP; 0 is one a core.
    pub workers: usize,
    /// Origins of web pages that may use the API from elsewhere, as browsers write them.
    #[serde(deserialize_with = "list")]
    pub cors_origins: Vec<String>,
    /// How long a stop goes on serving after `/readyz` has said so.
    pub drain_seconds: u32,
    /// Proxies whose `X-Forwarded-For` is believed.
    #[serde(deserialize_with = "proxies")]
    pub trusted_proxies: TrustedProxies,
}

impl Server {
    /// Where administrators are served, if not with everybody else.
    pub fn for_admins(&self) -> Option<(&str, u16)> {
        let host = if self.admin_host.is_empty() { &self.host } else { &self.admin_host };
        (self.admin_port > 0).then_some((host, self.admin_port))
    }
}

/// `embedded`: the backend in this process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedded {
    /// Folder of the database and of the secrets made at the first start.
    pub data_dir: PathBuf,
}

/// `auth`: tokens and password hashes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Key of the token signature.
    pub jwt_secret: SecretString,
    /// Lifetime of a token.
    pub token_ttl_seconds: u32,
    /// Work factor of bcrypt.
    pub bcrypt_cost: u32,
    /// Whose users buy.
    pub users: Users,
    /// Who may register.
    pub registration: Registration,
    /// The shop's own directory.
    pub external: External,
}

/// `auth.users`: whose users buy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// Those who registered here; only tokens that we issued are believed.
    Local,
    /// Those of the shop's own directory, whose tokens are believed.
    External,
}

/// `auth.registration`: who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Anybody.
    Open,
    /// Nobody.
    Closed,
}

/// `auth.external`: the directory whose tokens are believed with `auth.users: external`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// `iss` of its tokens.
    pub issuer: String,
    /// What `aud` must name; empty: tokens that are for a certain audience are not for us.
    pub audience: String,
    /// Key of its signatures, for HS256.
    pub secret: SecretString,
    /// A JWK Set of its keys, for RS256, ES256 and EdDSA.
    pub jwks_file: PathBuf,
    /// The same at an address.
    pub jwks_url: String,
    /// Whether its `role: admin` makes an administrator.
    pub trust_role: bool,
}

/// `admin`: the account made at the first start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: SecretString,
}

/// `limits`: against abuse.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Registrations and failed log-ins a minute, per address and per account; 0 is no limit.
    pub auth_per_minute: u32,
    /// Purchases that wait in an HTTP worker for the gate; one more is turned away at once.
    pub purchases_waiting: usize,
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address; 0 is no limit.
    pub connections_per_address: usize,
    /// Those who listen to events of products, and as many of orders.
    pub listeners: usize,
    /// Addresses that many buyers share: a product's `max_per_address` does not count there.
    #[serde(deserialize_with = "networks")]
    pub shared_addresses: Networks,
}

/// `shop`: whose sales these are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shop {
    /// What it is called, on its pages.
    pub name: String,
    /// Of new products that name none.
    pub currency: Currency,
    /// In which the merchant's console shows and takes times, by its name in the IANA database.
    pub time_zone: String,
}

/// `orders`: what becomes of them.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// How long an order may stay unpaid, of new products that do not say so.
    pub payment_window_seconds: PaymentWindow,
}

/// `payments`: who takes the money.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payments {
    /// Who it is. Whoever asks who takes the money wants [`Config::provider`].
    pub provider: Provider,
    /// With `external`: key of its signatures, `whsec_...`.
    pub webhook_secret: SecretString,
    /// With `external`: where buyers pay, a template.
    pub checkout_url: String,
    /// With `stripe`.
    pub stripe: Stripe,
    /// What becomes of money that comes for an order that has expired, or that its buyer has cancelled.
    pub late: Late,
    /// `test` also where others can reach it.
    pub allow_test: bool,
}

/// `payments.stripe`: an account at Stripe.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stripe {
    /// What we show Stripe.
    pub secret_key: SecretString,
    /// What Stripe signs its callbacks with.
    pub webhook_secret: SecretString,
    /// Where its API is.
    pub api_base: String,
    /// Where buyers come back to, a template.
    pub return_url: String,
}

/// `payments.provider`: who takes the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Nobody here: the shop, which marks orders as paid.
    None,
    /// A page of ours where one pays or declines.
    Test,
    /// The shop's own payment service.
    External,
    /// Stripe's checkout.
    Stripe,
}

/// `payments.late`: what becomes of money that comes too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// It pays the order all the same, if nobody else was promised its units.
    Revive,
    /// It is due back.
    Refund,
}

/// `webhooks`: how the shop is told what happens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// Endpoints may be at addresses that are not public, and need no https.
    pub allow_private: bool,
    /// Pauses before the tries of a delivery, in seconds, the first one first.
    #[serde(deserialize_with = "seconds")]
    pub retry_seconds: Vec<u32>,
}

/// `traces`: what an OpenTelemetry collector is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// Address of a collector that takes OTLP over HTTP; empty: there are no traces.
    pub endpoint: String,
    /// Which part of the requests is recorded, from 0 to 1.
    pub sample_ratio: f64,
    /// Headers for the collector, `name=value`, with commas between several.
    pub headers: SecretString,
}

/// `log`: what is written to standard error.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

words!(Backend { "embedded" => Backend::Embedded, "distributed" => Backend::Distributed });
words!(Users { "local" => Users::Local, "external" => Users::External });
words!(Registration { "open" => Registration::Open, "closed" => Registration::Closed });
words!(Provider {
    "none" => Provider::None,
    "test" => Provider::Test,
    "external" => Provider::External,
    "stripe" => Provider::Stripe
});
words!(Late { "revive" => Late::Revive, "refund" => Late::Refund });
words!(LogFormat { "text" => LogFormat::Text, "json" => LogFormat::Json });

/// A list of words; in the environment, with commas between them.
pub(super) fn list<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "must be a list")]
    enum Written {
        List(Vec<String>),
        Line(String),
    }
    let words = match Written::deserialize(value)? {
        Written::List(list) => list,
        Written::Line(line) => line.split(',').map(str::to_owned).collect(),
    };
    Ok(words.into_iter().map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect())
}

/// A list of whole seconds; in the environment, with commas between them.
fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "must be a list of whole seconds")]
    enum Written {
        List(Vec<u32>),
        Line(String),
    }
    match Written::deserialize(value)? {
        Written::List(list) => Ok(list),
        Written::Line(line) => {
            let parsed: Result<Vec<u32>, _> = line.split(',').map(|word| word.trim().parse()).collect();
            parsed.map_err(|_| serde::de::Error::custom("must be a list of whole seconds"))
        }
    }
}

/// A list of addresses and networks; in the environment, with commas between them.
fn networks<'de, D: Deserializer<'de>>(value: D) -> Result<Networks, D::Error> {
    let mut networks = Networks::default();
    for written in list(value)? {
        networks.add(&written).map_err(serde::de::Error::custom)?;
    }
    Ok(networks)
}

/// A list of proxies; in the environment, with commas between them.
fn proxies<'de, D: Deserializer<'de>>(value: D) -> Result<TrustedProxies, D::Error> {
    let parsed = TrustedProxies::parse(list(value)?.iter().map(String::as_str));
    parsed.map_err(serde::de::Error::custom)
}
