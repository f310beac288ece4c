//! The configuration: its structure, where it is read from, and what makes it invalid. Builds no client.

mod checks;
mod layers;
mod load;
mod payments;
mod schema;
mod traces;

pub use self::checks::{ConfigError, check_jwt_secret, check_password};
pub use self::payments::{CheckoutUrl, webhook_key};
pub use self::schema::{
    Admin, Auth, Backend, Config, Embedded, External, Late, Limits, Log, LogFormat, MySql, OWN_ISSUER, Payments,
    Provider, RabbitMq, Redis, Registration, Server, Shop, Traces, Users, Webhooks,
};
