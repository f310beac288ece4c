//! The configuration: its structure, where it is read from, and what makes it invalid. Builds no client.

#[macro_use]
mod words;

mod checks;
mod layers;
mod load;
mod payments;
mod schema;
mod servers;
mod traces;
mod warnings;

pub use self::checks::{ConfigError, check_jwt_secret, check_password};
pub use self::payments::{CheckoutUrl, webhook_key};
pub use self::schema::{
    Admin, Auth, Backend, Config, Embedded, External, Late, Limits, Log, LogFormat, OWN_ISSUER, Payments, Provider,
    Registration, Server, Shop, Traces, Users, Webhooks,
};
pub use self::servers::{MySql, RabbitMq, Redis, RedisMode, RedisPlace, Tls};
