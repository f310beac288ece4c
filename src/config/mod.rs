//! The configuration: its structure, where it is read from, and what makes it invalid.
//!
//! Layers, later ones win: the `config.yaml` this crate was built with, the file, the environment. Builds no client.

mod layers;

use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

use crate::complaint::Complaint;
use crate::model::{Password, TrustedProxies, Username};

/// The annotated defaults, which are also the file that ships with the project.
const DEFAULTS: &str = include_str!("../../config.yaml");
/// Read when no file is named and this one exists.
const DEFAULT_FILE: &str = "config.yaml";
/// HS256 is as strong as its key; a key shorter than the hash is weaker than it looks.
const JWT_SECRET_MIN_BYTES: usize = 32;
/// It is part of each key's name, which is sent with each purchase.
const MAX_KEY_PREFIX: usize = 64;
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
    /// The log.
    pub log: Log,
    /// What the operator set that the backend does not use.
    #[serde(skip)]
    unused: Option<&'static str>,
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

/// `embedded`: the backend in this process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedded {
    /// Folder of the database and of the secrets made at the first start.
    pub data_dir: PathBuf,
}

/// `mysql`: the database.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MySql {
    /// `mysql://user:password@host:port/database`.
    pub dsn: SecretString,
    /// Connections at most.
    pub pool_size: usize,
}

/// `redis`: the gate's store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `host:port`.
    pub addr: String,
    /// User of Redis' ACL; empty: its default user.
    pub username: String,
    /// Empty: no `AUTH`.
    pub password: SecretString,
    /// What the names of all our keys begin with.
    pub key_prefix: String,
    /// Logical database.
    pub db: u16,
    /// Connections at most.
    pub pool_size: usize,
}

impl Redis {
    /// Where the gates are, for people and to be compared: address, database, key prefix.
    pub fn place(&self) -> String {
        format!("{}/{}/{}", self.addr, self.db, self.key_prefix)
    }
}

/// `rabbitmq`: the queue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitMq {
    /// `amqp://user:password@host:port/vhost`.
    pub url: SecretString,
    /// Name of the queue of accepted purchases.
    pub queue: String,
    /// Consumer tasks.
    pub consumers: usize,
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

/// What is wrong with the configuration, in one line that names the key.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct ConfigError(String);

fn invalid(key: &str, problem: impl std::fmt::Display) -> ConfigError {
    ConfigError(format!("{key}: {problem}"))
}

macro_rules! words {
    ($type:ty { $($word:literal => $variant:path),+ }) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
                let word = String::deserialize(value)?;
                match word.as_str() {
                    $($word => Ok($variant),)+
                    _ => {
                        let known = [$($word),+].join(" or ");
                        Err(serde::de::Error::custom(format!("must be {known}, not `{word}`")))
                    }
                }
            }
        }
    };
}

words!(Backend { "embedded" => Backend::Embedded, "distributed" => Backend::Distributed });
words!(Users { "local" => Users::Local, "external" => Users::External });
words!(Registration { "open" => Registration::Open, "closed" => Registration::Closed });
words!(LogFormat { "text" => LogFormat::Text, "json" => LogFormat::Json });

/// A list of words; in the environment, with commas between them.
fn list<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
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

/// A list of proxies; in the environment, with commas between them.
fn proxies<'de, D: Deserializer<'de>>(value: D) -> Result<TrustedProxies, D::Error> {
    let parsed = TrustedProxies::parse(list(value)?.iter().map(String::as_str));
    parsed.map_err(serde::de::Error::custom)
}

impl Config {
    /// Reads the layers and checks the result.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_with(file, environment(None))
    }

    fn load_with(file: Option<&Path>, environment: Environment) -> Result<Self, ConfigError> {
        let unreadable = |error: config::ConfigError| ConfigError(one_line(&error));
        let defaults = config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Yaml)).build();
        let defaults = defaults.map_err(unreadable)?;
        let mut given = config::Config::builder();
        let path = file.unwrap_or_else(|| Path::new(DEFAULT_FILE));
        // What the configuration names is looked for from where it is itself.
        let mut base = Path::new("");
        if file.is_some() || path.exists() {
            given = given.add_source(file_layer(path).map_err(unreadable)?);
            base = path.parent().unwrap_or(base);
        }
        let given = given.add_source(environment).build().map_err(unreadable)?;
        let merged = config::Config::builder().add_source(defaults.clone()).add_source(given.clone()).build();
        let mut tree: layers::Tree = merged.and_then(config::Config::try_deserialize).map_err(unreadable)?;
        let default_tree: layers::Tree = defaults.clone().try_deserialize().map_err(unreadable)?;
        if let Some(key) = layers::not_whole(&tree, &default_tree) {
            return Err(invalid(&key, "must be a whole number"));
        }
        layers::fetch_secrets(&mut tree, base)?;
        let merged = from_tree(tree).map_err(unreadable)?;
        let mut config: Self = serde_path_to_error::deserialize(merged).map_err(|error| {
            let complaint = Complaint::of(&one_line(error.inner()));
            let path = error.path().to_string();
            match complaint.field {
                Some(field) if path == "." => invalid(&field, complaint.problem),
                Some(field) if path.split('.').next_back() != Some(&field) => {
                    invalid(&format!("{path}.{field}"), complaint.problem)
                }
                _ => invalid(&path, complaint.problem),
            }
        })?;
        config.validate()?;
        config.embedded.data_dir = base.join(&config.embedded.data_dir);
        let (given, defaults) = (given.try_deserialize(), defaults.try_deserialize());
        let (given, defaults) = (given.map_err(unreadable)?, defaults.map_err(unreadable)?);
        config.unused = layers::of_other_backend(config.backend, &given, &defaults);
        match (config.backend, config.unused) {
            (Backend::Embedded, Some(key)) => {
                let problem =
                    "is set, but backend is embedded, which does not use it: set backend: distributed, or remove it";
                Err(invalid(key, problem))
            }
            _ => Ok(config),
        }
    }

    /// Where the servers of the distributed backend are: MySQL, Redis, RabbitMQ. No secrets.
    pub fn servers(&self) -> (String, String, String) {
        let place = |url: &SecretString, port: u16| match url::Url::parse(url.expose_secret()) {
            Ok(url) => {
                let host = url.host_str().unwrap_or_default();
                format!("{host}:{}{}", url.port().unwrap_or(port), url.path())
            }
            Err(_) => String::new(),
        };
        let redis = format!("{}/{} {}*", self.redis.addr, self.redis.db, self.redis.key_prefix);
        let rabbitmq = format!("{} {}", place(&self.rabbitmq.url, 5672), self.rabbitmq.queue);
        (place(&self.mysql.dsn, 3306), redis, rabbitmq)
    }

    /// What an operator should know of this configuration, although it is valid.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.auth.bcrypt_cost < 10 {
            warnings.push(format!("auth.bcrypt_cost: {} is for tests; 10 or more", self.auth.bcrypt_cost));
        }
        if self.auth.users == Users::External
            && let Ok(url) = url::Url::parse(&self.auth.external.jwks_url)
            && url.scheme() == "http"
            && !is_loopback(&url)
        {
            let problem = "auth.external.jwks_url: over http whoever is on the way can choose the keys; use https";
            warnings.push(problem.to_owned());
        }
        if let Some(key) = self.unused {
            warnings.push(format!("{key}: is set, but backend is distributed, which does not use it"));
        }
        warnings
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if self.server.host.is_empty() {
            return Err(invalid("server.host", "must not be empty"));
        }
        for origin in &self.server.cors_origins {
            let is_origin = url::Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == *origin);
            if !is_origin {
                return Err(invalid("server.cors_origins", format!("`{origin}` is not as https://shop.example")));
            }
        }
        in_range("server.workers", self.server.workers, 0, 1024)?;
        in_range("server.drain_seconds", self.server.drain_seconds, 0, 3600)?;
        in_range("limits.purchases_waiting", self.limits.purchases_waiting, 1, 1_000_000)?;
        in_range("limits.connections", self.limits.connections, 1, 10_000_000)?;
        in_range("auth.token_ttl_seconds", self.auth.token_ttl_seconds, 1, 366 * 86_400)?;
        in_range("auth.bcrypt_cost", self.auth.bcrypt_cost, 4, 15)?;
        Username::parse(&self.admin.username).map_err(|problem| invalid("admin.username", problem))?;
        self.validate_secrets()?;
        self.validate_directory()?;
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
        has_scheme("mysql.dsn", &self.mysql.dsn, "mysql")?;
        has_scheme("rabbitmq.url", &self.rabbitmq.url, "amqp")?;
        let port = self.redis.addr.rsplit_once(':').map(|(host, port)| (host.is_empty(), port.parse::<u16>()));
        if !matches!(port, Some((false, Ok(_)))) {
            return Err(invalid("redis.addr", "must be host:port"));
        }
        in_range("redis.key_prefix (length)", self.redis.key_prefix.len(), 1, MAX_KEY_PREFIX)?;
        // Braces would make another hash tag than the product's; the rest keeps ACL patterns and shells out of trouble.
        if !self.redis.key_prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":._-/".contains(&byte)) {
            return Err(invalid("redis.key_prefix", "must be letters, digits and : . _ - / only"));
        }
        if !self.redis.username.is_empty() && self.redis.password.expose_secret().is_empty() {
            return Err(invalid("redis.password", "is missing; redis.username needs it"));
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
            ["jwks_url"] => match url::Url::parse(jwks_url) {
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
fn is_loopback(url: &url::Url) -> bool {
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

fn environment(source: Option<config::Map<String, String>>) -> Environment {
    Environment::with_prefix("SECKILL").prefix_separator("__").separator("__").source(source)
}

/// The file, with the spelling of the Go original's keys brought to ours.
fn file_layer(path: &Path) -> Result<config::Config, config::ConfigError> {
    let file = config::Config::builder().add_source(File::from(path).format(FileFormat::Yaml)).build()?;
    let mut root: layers::Tree = file.try_deserialize()?;
    for section in ["mysql", "redis"] {
        let Some(value) = root.get_mut(section) else { continue };
        if let config::ValueKind::Table(keys) = &mut value.kind
            && let Some(size) = keys.remove("poolSize")
        {
            keys.insert("pool_size".to_owned(), size);
        }
    }
    from_tree(root)
}

fn from_tree(tree: layers::Tree) -> Result<config::Config, config::ConfigError> {
    let mut builder = config::Config::builder();
    for (key, value) in tree {
        builder = builder.set_override(key, value)?;
    }
    builder.build()
}

fn in_range<T: PartialOrd + std::fmt::Display>(key: &str, value: T, least: T, most: T) -> Result<(), ConfigError> {
    if value < least || value > most {
        return Err(invalid(key, format!("must be {least} to {most}, not {value}")));
    }
    Ok(())
}

fn has_scheme(key: &str, url: &SecretString, scheme: &str) -> Result<(), ConfigError> {
    let url = url.expose_secret();
    if url.is_empty() {
        return Err(invalid(key, "is missing"));
    }
    match url::Url::parse(url) {
        Ok(parsed) if parsed.scheme() == scheme && parsed.has_host() => Ok(()),
        // The value holds a password: never print it.
        _ => Err(invalid(key, format!("must be {scheme}://user:password@host:port/..."))),
    }
}

fn one_line(error: &impl std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: &[(&str, &str)] = &[
        ("BACKEND", "distributed"),
        ("MYSQL__DSN", "mysql://u:p@127.0.0.1:3306/seckill"),
        ("RABBITMQ__URL", "amqp://u:p@127.0.0.1:5672/%2f"),
        ("AUTH__JWT_SECRET", "0123456789abcdef0123456789abcdef"),
        ("ADMIN__PASSWORD", "correct horse"),
    ];

    fn load(yaml: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let file = std::env::temp_dir().join(format!("seckill-config-{}.yaml", uuid::Uuid::now_v7()));
        std::fs::write(&file, yaml).unwrap();
        let variables = SECRETS
            .iter()
            .chain(variables)
            .map(|(key, value)| (format!("SECKILL__{key}"), (*value).to_owned()))
            .collect();
        let loaded = Config::load_with(Some(&file), environment(Some(variables)));
        std::fs::remove_file(file).unwrap();
        loaded.map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
        let config = load("server: { port: 9000, host: 0.0.0.0 }", &[("SERVER__PORT", "9001")]).unwrap();
        assert_eq!((config.server.port, config.server.host.as_str()), (9001, "0.0.0.0"));
        assert_eq!(config.rabbitmq.queue, "seckill.orders");
    }

    #[test]
    fn proxies_are_a_list_in_the_file_and_a_line_in_the_environment() {
        let proxies = TrustedProxies::parse(["10.0.0.0/8", "::1"]).unwrap();
        let file = load("server: { trusted_proxies: [10.0.0.0/8, '::1'] }", &[]).unwrap();
        assert_eq!(file.server.trusted_proxies, proxies);
        let line = load("{}", &[("SERVER__TRUSTED_PROXIES", "10.0.0.0/8, ::1")]).unwrap();
        assert_eq!(line.server.trusted_proxies, proxies);
        let none = load("{}", &[("SERVER__TRUSTED_PROXIES", "")]).unwrap();
        assert_eq!(none.server.trusted_proxies, TrustedProxies::default());
    }

    #[test]
    fn a_directory_needs_an_issuer_and_one_source_of_keys() {
        const SECRET: &str = "fedcba9876543210fedcba9876543210";
        let load = |settings: &[(&str, &str)]| {
            let settings = settings.iter().map(|(key, value)| (format!("AUTH__EXTERNAL__{key}"), *value));
            let mut settings: Vec<(String, &str)> = settings.collect();
            settings.push(("AUTH__USERS".to_owned(), "external"));
            load("{}", &settings.iter().map(|(key, value)| (key.as_str(), *value)).collect::<Vec<_>>())
        };
        load(&[("ISSUER", "https://shop.example"), ("SECRET", SECRET)]).unwrap();
        load(&[("ISSUER", "shop"), ("JWKS_URL", "https://shop.example/keys"), ("AUDIENCE", "seckill")]).unwrap();
        for (url, warned) in [
            ("http://shop.example/keys", true),
            ("http://10.0.0.1/keys", true),
            ("https://shop.example/keys", false),
            ("http://localhost:8000/keys", false),
            ("http://127.0.0.1/keys", false),
            ("http://[::1]/keys", false),
        ] {
            let config = load(&[("ISSUER", "shop"), ("JWKS_URL", url)]).unwrap();
            let is_warned = config.warnings().iter().any(|warning| warning.starts_with("auth.external.jwks_url: "));
            assert_eq!(is_warned, warned, "{url}");
        }
        for (settings, key) in [
            (&[][..], "issuer"),
            (&[("SECRET", SECRET)], "issuer"),
            (&[("ISSUER", "seckill"), ("SECRET", SECRET)], "issuer"),
            (&[("ISSUER", "shop")], "secret"),
            (&[("ISSUER", "shop"), ("SECRET", "short")], "secret"),
            (&[("ISSUER", "shop"), ("SECRET", "0123456789abcdef0123456789abcdef")], "secret"),
            (&[("ISSUER", "shop"), ("SECRET", SECRET), ("JWKS_FILE", "keys.json")], "jwks_file"),
            (&[("ISSUER", "shop"), ("JWKS_FILE", "keys.json"), ("JWKS_URL", "https://shop.example/")], "jwks_url"),
            (&[("ISSUER", "shop"), ("JWKS_URL", "ftp://shop.example/")], "jwks_url"),
            (&[("ISSUER", "shop"), ("SECRET", SECRET), ("TRUST_ROLE", "perhaps")], "trust_role"),
        ] {
            let message = load(settings).expect_err(key);
            assert!(message.starts_with(&format!("configuration: auth.external.{key}")), "{settings:?}: {message}");
            assert!(!message.contains('\n') && !message.contains(SECRET), "{message}");
        }
    }

    #[test]
    fn a_number_is_taken_as_it_is_written_or_not_at_all() {
        assert_eq!(load("limits: { auth_per_minute: 30.0 }", &[]).unwrap().limits.auth_per_minute, 30);
        assert_eq!(load("{}", &[("LIMITS__AUTH_PER_MINUTE", "7")]).unwrap().limits.auth_per_minute, 7);
    }

    #[test]
    fn the_go_spelling_of_pool_size_is_accepted_and_can_still_be_overridden() {
        assert_eq!(load("redis: { poolSize: 7 }", &[]).unwrap().redis.pool_size, 7);
        assert_eq!(load("redis: { poolSize: 7 }", &[("REDIS__POOL_SIZE", "8")]).unwrap().redis.pool_size, 8);
    }

    #[test]
    fn a_secret_of_digits_keeps_its_leading_zeros() {
        let config = load("{}", &[("ADMIN__PASSWORD", "0012345678")]).unwrap();
        assert_eq!(config.admin.password.expose_secret(), "0012345678");
    }

    #[test]
    fn every_mistake_is_one_line_that_names_the_key() {
        for (yaml, variable, key) in [
            ("server: { prot: 1 }", None, "server.prot"),
            ("sever: { port: 1 }", None, "sever"),
            ("server: { port: 70000 }", None, "server.port"),
            ("server: { port: many }", None, "server.port"),
            ("server: { trusted_proxies: [proxy.example] }", None, "server.trusted_proxies"),
            ("{}", Some(("BACKEND", "paper")), "backend"),
            ("embedded: { data_dir: '' }", Some(("BACKEND", "embedded")), "embedded.data_dir"),
            ("{}", Some(("SERVER__PROT", "1")), "server.prot"),
            ("{}", Some(("MYSQL__DSN", "")), "mysql.dsn"),
            ("{}", Some(("MYSQL__DSN", "user:pass@tcp(127.0.0.1:3306)/seckill")), "mysql.dsn"),
            ("{}", Some(("RABBITMQ__URL", "http://localhost")), "rabbitmq.url"),
            ("{}", Some(("AUTH__JWT_SECRET", "")), "auth.jwt_secret"),
            ("{}", Some(("AUTH__JWT_SECRET", "short")), "auth.jwt_secret"),
            ("{}", Some(("ADMIN__PASSWORD", "")), "admin.password"),
            ("{}", Some(("ADMIN__USERNAME", "a b")), "admin.username"),
            ("{}", Some(("ADMIN__PASSWORD", "correct\0horse")), "admin.password"),
            ("{}", Some(("AUTH__USERS", "theirs")), "auth.users"),
            ("auth: { registration: ajar }", None, "auth.registration"),
            ("server: { trusted_proxies: [10.0.0.0/33] }", None, "server.trusted_proxies"),
            ("auth: { bcrypt_cost: 3 }", None, "auth.bcrypt_cost"),
            ("auth: { bcrypt_cost: 16 }", None, "auth.bcrypt_cost"),
            ("redis: { addr: localhost }", None, "redis.addr"),
            ("redis: { key_prefix: 'shop {1}' }", None, "redis.key_prefix"),
            ("redis: { key_prefix: '' }", None, "redis.key_prefix"),
            ("redis: { username: seckill }", None, "redis.password"),
            ("rabbitmq: { consumers: 0 }", None, "rabbitmq.consumers"),
            ("rabbitmq: { queue: shop.dead }", None, "rabbitmq.queue"),
            ("rabbitmq: { queue: amq.orders }", None, "rabbitmq.queue"),
            ("mysql: { pool_size: 2 }", None, "mysql.pool_size"),
            ("limits: { auth_per_minute: -1 }", None, "limits.auth_per_minute"),
            ("limits: { purchases_waiting: 0 }", None, "limits.purchases_waiting"),
            ("log: { format: xml }", None, "log.format"),
            ("server: { drain_seconds: 3601 }", None, "server.drain_seconds"),
        ] {
            let message = load(yaml, variable.as_slice()).expect_err(yaml);
            assert!(message.starts_with(&format!("configuration: {key}")), "{yaml} {variable:?}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn mistakes_are_told_in_words_of_people() {
        for (yaml, variable, message) in [
            ("{}", Some(("BACKEND", "sqlite")), "backend: must be embedded or distributed, not `sqlite`"),
            ("log: { format: xml }", None, "log.format: must be text or json, not `xml`"),
            ("server: { port: many }", None, "server.port: must be a whole number"),
            ("server: { port: 70000 }", None, "server.port: is out of range"),
            ("server: { port: -1 }", None, "server.port: is out of range"),
            ("limits: { auth_per_minute: 1.5 }", None, "limits.auth_per_minute: must be a whole number"),
            ("limits: { auth_per_minute: true }", None, "limits.auth_per_minute: must be a whole number"),
            ("{}", Some(("LIMITS__AUTH_PER_MINUTE", "1.5")), "limits.auth_per_minute: must be a whole number"),
            ("{}", Some(("SERVER__PORT", "on")), "server.port: must be a whole number"),
            ("rabbitmq: { consumers: 2.5 }", None, "rabbitmq.consumers: must be a whole number"),
            ("auth: { token_ttl_seconds: 0.5 }", None, "auth.token_ttl_seconds: must be a whole number"),
            ("server: { host: [1] }", None, "server.host: must be text"),
            ("server: []", None, "server: must be an object"),
            (
                "server: { cors_origins: [shop.example] }",
                None,
                "server.cors_origins: `shop.example` is not as https://shop.example",
            ),
            (
                "{}",
                Some(("SERVER__CORS_ORIGINS", "https://a.example, https://a.example/")),
                "server.cors_origins: `https://a.example/` is not as https://shop.example",
            ),
        ] {
            let said = load(yaml, variable.as_slice()).expect_err(yaml);
            assert_eq!(said, format!("configuration: {message}"), "{yaml} {variable:?}");
        }
        let unknown = load("server: { prot: 1 }", &[]).unwrap_err();
        assert!(
            unknown.starts_with("configuration: server.prot: is not known here; known are host, port"),
            "{unknown}"
        );
    }

    #[test]
    fn the_embedded_backend_needs_no_secret_and_no_server() {
        let nothing = [("MYSQL__DSN", ""), ("RABBITMQ__URL", ""), ("AUTH__JWT_SECRET", ""), ("ADMIN__PASSWORD", "")];
        let config = load("backend: embedded", &[&nothing[..], &[("BACKEND", "embedded")]].concat()).unwrap();
        assert_eq!(config.backend, Backend::Embedded);
    }

    #[test]
    fn what_is_set_for_servers_while_the_backend_is_embedded_is_refused_by_name() {
        let nothing = [("MYSQL__DSN", ""), ("RABBITMQ__URL", ""), ("AUTH__JWT_SECRET", ""), ("ADMIN__PASSWORD", "")];
        let embedded = [&nothing[..], &[("BACKEND", "embedded")]].concat();
        for (yaml, variable, key) in [
            ("mysql: { dsn: 'mysql://u:p@db/seckill' }", None, "mysql.dsn"),
            ("redis: { addr: 'redis:6379' }", None, "redis.addr"),
            ("{}", Some(("REDIS__PASSWORD", "hunter2")), "redis.password"),
            ("{}", Some(("RABBITMQ__URL", "amqp://u:hunter2@mq:5672/%2f")), "rabbitmq.url"),
        ] {
            let mut variables = embedded.clone();
            if yaml.contains("dsn") {
                variables.retain(|(name, _)| *name != "MYSQL__DSN");
            }
            variables.extend(variable);
            let set = variables.iter().map(|(key, value)| (format!("SECKILL__{key}"), (*value).to_owned())).collect();
            let file = std::env::temp_dir().join(format!("seckill-config-{}.yaml", uuid::Uuid::now_v7()));
            std::fs::write(&file, yaml).unwrap();
            let message = Config::load_with(Some(&file), environment(Some(set))).unwrap_err().to_string();
            std::fs::remove_file(file).unwrap();
            assert!(message.starts_with(&format!("configuration: {key}: ")), "{message}");
            assert!(message.contains("backend is embedded") && !message.contains("hunter2"), "{message}");
        }
        let same_as_default = "redis: { addr: '127.0.0.1:6379', password: '' }";
        assert!(load(same_as_default, &embedded).is_ok(), "the file that ships with the project sets it");
        let folder = load("embedded: { data_dir: elsewhere }", &[]).unwrap();
        assert!(folder.warnings().iter().any(|warning| warning.starts_with("embedded.data_dir")));
    }

    #[test]
    fn every_secret_can_be_in_a_file_beside_the_configuration_and_is_checked_there_too() {
        let folder = std::env::temp_dir().join(format!("seckill-config-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        let load = |yaml: &str| {
            write("config.yaml", yaml);
            let loaded = Config::load_with(Some(&folder.join("config.yaml")), environment(Some(config::Map::new())));
            loaded.map_err(|error| error.to_string())
        };
        write("dsn", "mysql://u:p@127.0.0.1:3306/seckill\n");
        write("redis", "redis secret\r\n");
        write("url", "amqp://u:p@127.0.0.1:5672/%2f");
        write("jwt", "0123456789abcdef0123456789abcdef\n");
        write("admin", "correct horse\n");
        let servers = "backend: distributed\nmysql: { dsn_file: dsn }\nredis: { password_file: redis }\n\
                       rabbitmq: { url_file: url }\nadmin: { password_file: admin }\n";
        let config = load(&format!("{servers}auth: {{ jwt_secret_file: jwt }}")).unwrap();
        assert_eq!(config.redis.password.expose_secret(), "redis secret");
        assert_eq!(config.admin.password.expose_secret(), "correct horse");
        assert_eq!(config.auth.jwt_secret.expose_secret(), "0123456789abcdef0123456789abcdef");
        assert_eq!(config.servers().0, "127.0.0.1:3306/seckill");

        write("short", "short\n");
        for (auth, key, problem) in [
            ("{ jwt_secret_file: short }", "auth.jwt_secret", "at least 32 bytes"),
            ("{ jwt_secret_file: missing }", "auth.jwt_secret_file", "no such file"),
            (
                "{ jwt_secret_file: jwt, jwt_secret: 0123456789abcdef0123456789abcdef }",
                "auth.jwt_secret_file",
                "set too",
            ),
            ("{ bcrypt_cost_file: jwt }", "auth.bcrypt_cost_file", "is not known here"),
        ] {
            let message = load(&format!("{servers}auth: {auth}")).unwrap_err();
            assert!(message.starts_with(&format!("configuration: {key}: ")) && message.contains(problem), "{message}");
        }
        assert_eq!(load("embedded: { data_dir: here }").unwrap().embedded.data_dir, folder.join("here"));
        assert_eq!(load("embedded: { data_dir: /there }").unwrap().embedded.data_dir, Path::new("/there"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_is_named_but_missing_is_an_error() {
        let error = Config::load(Some(Path::new("no/such/file.yaml"))).unwrap_err();
        assert!(error.to_string().contains("no/such/file.yaml"), "{error}");
    }
}
