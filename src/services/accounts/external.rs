//! Tokens that the shop's own directory signs (`auth.users: external`).
//!
//! The first time a token comes it is read, its signature checked, and its subject's number looked up; from then on it is
//! known by its hash. What is remembered is bounded, and ends with the token, with the keys that signed it, and after
//! [`REMEMBERED_FOR`].

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use moka::sync::Cache;
use ring::digest::SHA256;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::directory::{Asking, Directory};
use super::jwt::SignedToken;
use super::keys::{KeySource, Keys, Verdict};
use super::session::{Issued, Session};
use super::tokens::{Identity, now};
use crate::config;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::Role;
use crate::supervision::Supervisor;

/// Tokens remembered at most: some 40 MiB.
const MAX_TOKENS: u64 = 200_000;
/// Shorter than withdrawals are kept.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);
/// A subject is not longer.
const SUBJECT_MAX_BYTES: usize = 255;

#[derive(Clone, Copy)]
struct Known {
    session: Session,
    ends_at: i64,
    /// Of the keys by which it was checked.
    keys: u64,
}

/// See the module.
pub(super) struct External {
    issuer: String,
    audience: Option<String>,
    trust_role: bool,
    keys: Keys,
    directory: Directory,
    asking: Asking,
    tokens: Cache<[u8; 32], Known>,
}

impl External {
    /// Believes tokens as configured.
    pub(super) fn new(settings: &config::External, db: Db) -> std::result::Result<Self, String> {
        let source = match (&settings.jwks_file, &settings.jwks_url) {
            (file, _) if !file.as_os_str().is_empty() => KeySource::File(file.clone()),
            (_, url) if !url.is_empty() => {
                KeySource::Address(url.parse().map_err(|error| format!("auth.external.jwks_url: {error}"))?)
            }
            _ => KeySource::Secret(settings.secret.clone()),
        };
        let (directory, asking) = Directory::new(db, settings.issuer.clone(), REMEMBERED_FOR);
        Ok(Self {
            issuer: settings.issuer.clone(),
            audience: Some(settings.audience.clone()).filter(|audience| !audience.is_empty()),
            trust_role: settings.trust_role,
            keys: Keys::new(source)?,
            directory,
            asking,
            tokens: Cache::builder().max_capacity(MAX_TOKENS).time_to_live(REMEMBERED_FOR).build(),
        })
    }

    /// Asks for users and keys until `stop`.
    pub(super) fn keep_fresh(self: &Arc<Self>, supervisor: &Supervisor, tasks: &TaskTracker, stop: &CancellationToken) {
        let (this, stopped) = (self.clone(), stop.clone());
        supervisor.keep("user-directory", tasks, stop, move || {
            let (this, stop) = (this.clone(), stopped.clone());
            async move { this.asking.run(stop).await }
        });
        if self.keys.change() {
            let (this, stopped) = (self.clone(), stop.clone());
            supervisor.keep("user-directory-keys", tasks, stop, move || {
                let (this, stop) = (this.clone(), stopped.clone());
                async move { this.keys.run(stop).await }
            });
        }
    }

    /// Whose a token is, if it has been here before.
    pub(super) fn known(&self, token: &str) -> Option<Session> {
        let known = self.tokens.get(&digest(token))?;
        (known.ends_at > now() && known.keys == self.keys.version()).then_some(known.session)
    }

    /// Whose a token is.
    pub(super) async fn check(&self, token: &str) -> Result<Session> {
        let signed = SignedToken::read(token).ok_or(Error::Unauthorized)?;
        if !matches!(signed.algorithm, Algorithm::HS256 | Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA) {
            return Err(Error::Unauthorized);
        }
        // Before a signature costs anything, and before anybody is asked for a key.
        let claims = signed.claims().ok_or(Error::Unauthorized)?;
        let subject = (1..=SUBJECT_MAX_BYTES).contains(&claims.sub.len());
        if !subject || !claims.hold(&self.issuer, self.audience.as_deref(), now()) {
            return Err(Error::Unauthorized);
        }
        let mut keys = self.keys.current();
        let mut verdict = keys.judge(&signed);
        if matches!(verdict, Verdict::UnknownKey) {
            keys = self.keys.look_again().await;
            verdict = keys.judge(&signed);
        }
        match verdict {
            Verdict::Signed => {}
            Verdict::UnknownKey if keys.version == 0 => {
                return Err(Error::Unavailable("the keys of the shop's directory have not been read yet".to_owned()));
            }
            Verdict::UnknownKey | Verdict::NotSigned => return Err(Error::Unauthorized),
        }
        let user = self.directory.find(&claims.sub).await?;
        let at = claims.issued_at().unwrap_or(i64::MIN);
        if at < user.tokens_valid_from && user.tokens_valid_from > 0 {
            return Err(Error::Unauthorized);
        }
        let administers = self.trust_role && claims.role == Role::Admin.as_str();
        let role = if administers { Role::Admin } else { Role::Buyer };
        let session = Session { identity: Identity { user_id: user.id, role }, issued: Issued::Elsewhere { at } };
        self.tokens.insert(digest(token), Known { session, ends_at: claims.ends_at(), keys: keys.version });
        Ok(session)
    }
}

fn digest(token: &str) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&SHA256, token.as_bytes()).as_ref());
    digest
}
