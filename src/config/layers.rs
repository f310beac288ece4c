//! What is done with the layers of the configuration before they are read: secrets are fetched from their files, and
//! what the operator set for the other backend is noticed.

use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};
use secrecy::ExposeSecret;

use super::checks::{ConfigError, invalid};
use super::schema::Backend;
use crate::secret_file::{self, Links};

/// Every secret there is. Each can be given as `<key>_file` instead, the path of a file that holds it.
const SECRETS: &[&str] = &[
    "mysql.dsn",
    "redis.password",
    "redis.sentinel_password",
    "rabbitmq.url",
    "auth.jwt_secret",
    "auth.external.secret",
    "admin.password",
    "payments.webhook_secret",
    "payments.stripe.secret_key",
    "payments.stripe.webhook_secret",
    "traces.headers",
];
/// What only the distributed backend uses and nobody sets without meaning it.
const OF_SERVERS: &[&str] = &[
    "mysql.dsn",
    "mysql.dsn_file",
    "redis.mode",
    "redis.addr",
    "redis.nodes",
    "redis.sentinel_username",
    "redis.sentinel_password",
    "redis.sentinel_password_file",
    "redis.username",
    "redis.password",
    "redis.password_file",
    "rabbitmq.url",
    "rabbitmq.url_file",
    "mysql.tls",
    "redis.tls",
    "rabbitmq.tls",
];
/// What only the embedded backend uses.
const OF_EMBEDDED: &[&str] = &["embedded.data_dir"];

/// Sections and their keys.
pub(super) type Tree = Map<String, Value>;

/// Puts the secrets in the place of the keys that name their files, which are relative to `base`. Which ones, and the files.
pub(super) fn fetch_secrets(tree: &mut Tree, base: &Path) -> Result<Vec<(&'static str, PathBuf)>, ConfigError> {
    let mut files = Vec::new();
    for key in SECRETS {
        let Some((table, leaf)) = table_of(tree, key) else { continue };
        let file_leaf = format!("{leaf}_file");
        let Some(file) = table.remove(&file_leaf) else { continue };
        let file_key = format!("{key}_file");
        let file = file.into_string().map_err(|_| invalid(&file_key, "must be the path of a file"))?;
        if file.is_empty() {
            continue;
        }
        let given = table.get(leaf).cloned().and_then(|value| value.into_string().ok());
        if given.is_some_and(|given| !given.is_empty()) {
            return Err(invalid(
                &file_key,
                format!("is set, and {key} is set too; which one is meant? Remove the other"),
            ));
        }
        let path = base.join(&file);
        let secret = secret_file::read(&path, Links::Follow).map_err(|problem| invalid(&file_key, problem))?;
        let secret = secret.ok_or_else(|| invalid(&file_key, format!("{}: no such file", path.display())))?;
        table.insert(leaf.to_owned(), Value::from(secret.expose_secret()));
        files.push((*key, path));
    }
    Ok(files)
}

/// A key whose default is a whole number and whose value is none: the library would round it, or take yes for 1.
pub(super) fn not_whole(given: &Tree, defaults: &Tree) -> Option<String> {
    let mut keys: Vec<&String> = defaults.keys().collect();
    keys.sort_unstable();
    keys.into_iter().find_map(|key| {
        let value = &given.get(key)?.kind;
        match &defaults[key].kind {
            ValueKind::Table(defaults) => {
                let ValueKind::Table(given) = value else { return None };
                not_whole(given, defaults).map(|leaf| format!("{key}.{leaf}"))
            }
            ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
                let is_whole = match value {
                    ValueKind::Float(number) => number.fract() == 0.0,
                    ValueKind::String(text) => text.trim().parse::<i128>().is_ok(),
                    ValueKind::Boolean(_) => false,
                    _ => true,
                };
                (!is_whole).then(|| key.clone())
            }
            _ => None,
        }
    })
}

/// The first key that the operator set for the other backend, to something else than its default.
pub(super) fn of_other_backend(backend: Backend, given: &Tree, defaults: &Tree) -> Option<&'static str> {
    let keys = match backend {
        Backend::Embedded => OF_SERVERS,
        Backend::Distributed => OF_EMBEDDED,
    };
    keys.iter().copied().find(|key| {
        let given = text_at(given, key).unwrap_or_default();
        !given.is_empty() && Some(given) != text_at(defaults, key)
    })
}

fn text_at(tree: &Tree, key: &str) -> Option<String> {
    let mut parts = key.split('.');
    let mut value = tree.get(parts.next()?)?;
    for part in parts {
        let ValueKind::Table(table) = &value.kind else { return None };
        value = table.get(part)?;
    }
    match &value.kind {
        ValueKind::Array(items) => Some(items.iter().map(Value::to_string).collect::<Vec<_>>().join(",")),
        _ => value.clone().into_string().ok(),
    }
}

/// The table that holds a key, if there is such a section.
fn table_of<'a>(tree: &'a mut Tree, key: &'static str) -> Option<(&'a mut Tree, &'static str)> {
    let (sections, leaf) = key.rsplit_once('.')?;
    let mut table = tree;
    for section in sections.split('.') {
        let ValueKind::Table(inner) = &mut table.get_mut(section)?.kind else { return None };
        table = inner;
    }
    Some((table, leaf))
}
