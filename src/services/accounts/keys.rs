//! The keys by which the shop's directory signs: a secret, or a JWK Set (RFC 7517) from a file or an address.
//!
//! A set is read again now and then, and when a token names a key that is not in it, but not oftener than every
//! [`LEAST_PAUSE`]: tokens cost the shop's server nothing. A set that cannot be read leaves the one before in force.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::{Jwk, KeyOperations, PublicKeyUse};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::jwt::SignedToken;
use super::signature::{SigningKey, VerifyingKey};
use crate::services::http_client::http_client;

/// A set is read again after this.
const REREAD_FILE: Duration = Duration::from_secs(2);
const REREAD_ADDRESS: Duration = Duration::from_secs(300);
/// After a failure, and between two looks for keys that tokens name.
const LEAST_PAUSE: Duration = Duration::from_secs(10);
/// An address must have answered by then.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// A larger set is refused.
const MAX_BYTES: usize = 256 * 1024;
/// Keys beyond this many are not looked at.
const MAX_KEYS: usize = 64;

/// What to look at when a certificate is not accepted.
const TRUST: &str = "its certificate must be valid for this address, and signed by somebody whom this machine trusts: add a \
                     CA of your own to the system's certificates, or name its file in the environment variable SSL_CERT_FILE";

/// Where the keys come from.
pub(super) enum KeySource {
    /// HS256.
    Secret(SecretString),
    /// A JWK Set in a file.
    File(PathBuf),
    /// A JWK Set at an address.
    Address(url::Url),
}

/// Keys, and a number that changes when they do.
#[derive(Clone, Default)]
pub(super) struct KeySet {
    /// 0: none yet.
    pub(super) version: u64,
    keys: Arc<Vec<Key>>,
}

struct Key {
    id: Option<String>,
    key: VerifyingKey,
}

/// What a set has to say of a token.
pub(super) enum Verdict {
    /// One of its keys signed it.
    Signed,
    /// None of them did.
    NotSigned,
    /// It names a key that is not there.
    UnknownKey,
}

/// See the module.
pub(super) struct Keys {
    source: KeySource,
    set: watch::Sender<(KeySet, Option<Instant>)>,
    /// That of the set, for each request looks at it.
    version: AtomicU64,
    wanted: Notify,
    http: Option<ureq::Agent>,
}

impl KeySet {
    fn of_secret(secret: &SecretString) -> Self {
        let key = VerifyingKey::Secret(SigningKey::new(secret.expose_secret().as_bytes()));
        Self { version: 1, keys: Arc::new(vec![Key { id: None, key }]) }
    }

    /// Whether one of these keys signed a token. A key is for one algorithm only, whatever the token says.
    pub(super) fn judge(&self, token: &SignedToken<'_>) -> Verdict {
        let named = |key: &&Key| match (&token.key_id, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            // A key without a name may be anybody's.
            _ => true,
        };
        let mut candidates = self.keys.iter().filter(named).peekable();
        if candidates.peek().is_none() {
            return Verdict::UnknownKey;
        }
        if candidates.any(|key| token.is_signed_by(&key.key)) {
            return Verdict::Signed;
        }
        // A token that names no key may be by one that is new.
        if token.key_id.is_none() && token.algorithm != Algorithm::HS256 {
            Verdict::UnknownKey
        } else {
            Verdict::NotSigned
        }
    }
}

/// Reads a JWK Set. Keys for other purposes, or of kinds that we do not use, are left out, as RFC 7517 asks; a set with
/// none left is refused.
fn parse(json: &[u8]) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(json).map_err(|error| format!("is not a JWK Set: {error}"))?;
    let keys: Vec<Key> = set
        .keys
        .into_iter()
        .take(MAX_KEYS)
        .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
        .filter_map(|jwk| usable(&jwk))
        .collect();
    if keys.is_empty() { Err("holds no key for RS256, ES256 or EdDSA".to_owned()) } else { Ok(keys) }
}

fn usable(jwk: &Jwk) -> Option<Key> {
    let key = VerifyingKey::from_jwk(&jwk.algorithm)?;
    let common = &jwk.common;
    let to_sign = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let to_verify = common.key_operations.as_ref().is_none_or(|uses| uses.contains(&KeyOperations::Verify));
    let meant = common.key_algorithm.is_none_or(|meant| meant.to_string() == format!("{:?}", key.algorithm()));
    (to_sign && to_verify && meant).then(|| Key { id: common.key_id.clone(), key })
}

impl Keys {
    /// Keys from `source`, which for a file must be readable now; an address may answer later.
    pub(super) fn new(source: KeySource) -> Result<Self, String> {
        let (set, http) = match &source {
            KeySource::Secret(secret) => (KeySet::of_secret(secret), None),
            KeySource::File(path) => {
                let read = read_file(path)
                    .and_then(|json| parse(&json))
                    .map_err(|problem| format!("auth.external.jwks_file: {}: {problem}", path.display()))?;
                (KeySet { version: 1, keys: Arc::new(read) }, None)
            }
            KeySource::Address(_) => {
                (KeySet::default(), Some(http_client(FETCH_TIMEOUT).max_idle_connections(0).build().into()))
            }
        };
        let version = AtomicU64::new(set.version);
        Ok(Self { source, version, set: watch::Sender::new((set, None)), wanted: Notify::new(), http })
    }

    /// Whether they can become others, so that [`Keys::run`] must run.
    pub(super) fn change(&self) -> bool {
        !matches!(self.source, KeySource::Secret(_))
    }

    /// The keys as they are now.
    pub(super) fn current(&self) -> KeySet {
        self.set.borrow().0.clone()
    }

    /// The number of the keys as they are now.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// The keys after a look for one that is missing, if there has not just been one.
    pub(super) async fn look_again(&self) -> KeySet {
        let mut changes = self.set.subscribe();
        let looked = changes.borrow_and_update().1;
        let may_look = self.change() && looked.is_none_or(|at| at.elapsed() >= LEAST_PAUSE);
        if may_look {
            self.wanted.notify_one();
            let _ = timeout(FETCH_TIMEOUT, changes.changed()).await;
        }
        self.current()
    }

    /// Keeps the keys fresh until `stop`.
    pub(super) async fn run(&self, stop: CancellationToken) {
        let reread = match self.source {
            KeySource::Secret(_) => return,
            KeySource::File(_) => REREAD_FILE,
            KeySource::Address(_) => REREAD_ADDRESS,
        };
        let mut last = Vec::new();
        let mut failing = None;
        loop {
            let read = match stop.run_until_cancelled(self.read()).await {
                Some(read) => read,
                None => return,
            };
            let outcome = read.and_then(|json| {
                let keys = if json == last { None } else { Some(parse(&json)?) };
                last = json;
                Ok(keys)
            });
            let changed = self.note(outcome, &mut failing);
            self.set.send_modify(|(set, looked)| {
                if let Some(keys) = changed {
                    *set = KeySet { version: set.version + 1, keys: Arc::new(keys) };
                    self.version.store(set.version, Ordering::Relaxed);
                }
                *looked = Some(Instant::now());
            });
            let pause = if failing.is_some() { LEAST_PAUSE.min(reread) } else { reread };
            let pause = async {
                tokio::time::sleep(LEAST_PAUSE.min(pause)).await;
                tokio::select! {
                    () = tokio::time::sleep(pause.saturating_sub(LEAST_PAUSE)) => {}
                    () = self.wanted.notified() => {}
                }
            };
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    /// Says in the log what has changed: once, not at each try.
    fn note(&self, outcome: Result<Option<Vec<Key>>, String>, failing: &mut Option<String>) -> Option<Vec<Key>> {
        let source = self.describe();
        match outcome {
            Ok(changed) => {
                if failing.take().is_some() || changed.is_some() {
                    tracing::info!(source, "Read the keys of the shop's directory");
                }
                changed
            }
            Err(problem) => {
                if failing.as_ref() != Some(&problem) {
                    tracing::warn!(
                        source,
                        problem,
                        "Cannot read the keys of the shop's directory; those before stay in force, if there were any"
                    );
                }
                *failing = Some(problem);
                None
            }
        }
    }

    fn describe(&self) -> String {
        match &self.source {
            KeySource::Secret(_) => "auth.external.secret".to_owned(),
            KeySource::File(path) => path.display().to_string(),
            // Without what may be a password.
            KeySource::Address(url) => format!("{}{}", url.origin().ascii_serialization(), url.path()),
        }
    }

    async fn read(&self) -> Result<Vec<u8>, String> {
        match (&self.source, &self.http) {
            (KeySource::File(path), _) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
                read.map_err(|error| error.to_string())?
            }
            (KeySource::Address(url), Some(http)) => {
                let (url, http) = (url.to_string(), http.clone());
                let fetched = tokio::task::spawn_blocking(move || fetch(&http, &url)).await;
                fetched.map_err(|error| error.to_string())?
            }
            _ => Err("there is nothing to read".to_owned()),
        }
    }
}

fn read_file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    let mut json = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut json).map_err(|error| error.to_string())?;
    if json.len() > MAX_BYTES { Err(format!("is larger than {MAX_BYTES} bytes")) } else { Ok(json) }
}

fn fetch(http: &ureq::Agent, url: &str) -> Result<Vec<u8>, String> {
    let mut reply = http.get(url).call().map_err(|error| match &error {
        // What TLS does not accept: nearly always the certificate.
        ureq::Error::Io(cause) if cause.kind() == std::io::ErrorKind::InvalidData => format!("{error}; {TRUST}"),
        _ => error.to_string(),
    })?;
    if reply.status() != 200 {
        return Err(format!("answered {}", reply.status()));
    }
    let body = reply.body_mut().with_config().limit(MAX_BYTES as u64);
    body.read_to_vec().map_err(|error| error.to_string())
}
