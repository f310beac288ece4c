//! Accounts: registering, logging in, and the administrator of the first start.

use std::net::IpAddr;
use std::sync::Arc;

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokio::sync::SetOnce;

use super::auth_limiter::AuthLimiter;
use super::{Identity, PasswordHasher, Tokens};
use crate::config;
use crate::db::{Db, DbError};
use crate::error::{Error, Result};
use crate::model::{Password, Role, UserId, Username};

/// See the module.
pub struct Accounts {
    db: Db,
    tokens: Arc<Tokens>,
    passwords: PasswordHasher,
    limiter: AuthLimiter,
    admin_exists: SetOnce<()>,
}

/// A name and a password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    username: String,
    password: String,
}

/// Who a user is.
#[derive(Debug, Serialize)]
pub struct Profile {
    /// The id.
    pub id: UserId,
    /// The name; `None` for a user of the shop's own directory.
    pub username: Option<String>,
    /// What they may do.
    pub role: Role,
}

/// What a log-in yields.
#[derive(Debug, Serialize)]
pub struct LoggedIn {
    /// The token.
    pub access_token: String,
    /// Always `Bearer`.
    pub token_type: &'static str,
    /// Seconds.
    pub expires_in: u64,
}

impl Accounts {
    /// `auth_per_minute`: registrations and failed log-ins per address and per account; 0 is no limit.
    pub fn new(db: Db, tokens: Arc<Tokens>, passwords: PasswordHasher, auth_per_minute: u32) -> Self {
        let limiter = AuthLimiter::new(auth_per_minute);
        Self { db, tokens, passwords, limiter, admin_exists: SetOnce::new() }
    }

    /// Makes an account for a buyer.
    pub async fn register(&self, credentials: Credentials, from: IpAddr) -> Result<Profile> {
        let invalid = |field: &str, problem| Error::Invalid(format!("{field}: {problem}"));
        let name = Username::parse(&credentials.username).map_err(|problem| invalid("username", problem))?;
        let password = Password::parse(&credentials.password).map_err(|problem| invalid("password", problem))?;
        self.limiter.registration(from)?;
        let wanted = name.clone();
        let taken = self.db.read(|conn| Box::pin(async move { conn.find_user_by_name(&wanted).await })).await?;
        if taken.is_some() {
            return Err(Error::UsernameTaken);
        }
        let id = self.insert(name.clone(), password, Role::Buyer).await?;
        Ok(Profile { id, username: Some(name.as_str().to_owned()), role: Role::Buyer })
    }

    /// Checks a name and a password. A name that is unknown takes as long as a password that is wrong.
    pub async fn log_in(&self, credentials: Credentials, from: IpAddr) -> Result<LoggedIn> {
        let name = Username::parse(&credentials.username).ok();
        self.limiter.log_in(from, name.as_ref())?;
        self.admin_exists.wait().await;
        let account = match name.clone() {
            Some(name) => self.db.read(|conn| Box::pin(async move { conn.find_user_by_name(&name).await })).await?,
            None => None,
        };
        let well_formed = Password::parse(&credentials.password).is_ok();
        let hash = account.as_ref().filter(|_| well_formed).map(|account| account.password_hash.clone());
        let correct = self.passwords.verify(credentials.password, hash).await?;
        match account {
            Some(account) if correct => {
                let identity = Identity { user_id: account.id, role: account.role };
                let access_token = self.tokens.issue(identity)?;
                let expires_in = self.tokens.lifetime().as_secs();
                Ok(LoggedIn { access_token, token_type: "Bearer", expires_in })
            }
            _ => {
                self.limiter.log_in_failed(from, name.as_ref());
                Err(Error::InvalidCredentials)
            }
        }
    }

    /// Who the bearer of a token is.
    pub async fn profile(&self, identity: Identity) -> Result<Profile> {
        let account = self.db.read(move |conn| Box::pin(conn.find_user(identity.user_id))).await?;
        Ok(Profile { id: identity.user_id, username: account.map(|account| account.username), role: identity.role })
    }

    /// Makes the administrator unless an account of that name exists; says whether it did. Nobody logs in before.
    pub async fn ensure_admin(&self, settings: &config::Admin) -> Result<bool> {
        let made = self.make_admin(settings).await?;
        // Already set when this is called a second time.
        let _ = self.admin_exists.set(());
        Ok(made)
    }

    async fn make_admin(&self, settings: &config::Admin) -> Result<bool> {
        let name = Username::parse(&settings.username).map_err(|problem| Error::Invalid(problem.to_owned()))?;
        let wanted = name.clone();
        let existing = self.db.read(|conn| Box::pin(async move { conn.find_user_by_name(&wanted).await })).await?;
        match existing {
            Some(account) if account.role == Role::Admin => return Ok(false),
            Some(_) => {
                tracing::warn!("The account named in admin.username is a buyer's and stays one");
                return Ok(false);
            }
            None => {}
        }
        let password =
            Password::parse(settings.password.expose_secret()).map_err(|problem| Error::Invalid(problem.to_owned()))?;
        match self.insert(name, password, Role::Admin).await {
            Ok(_) => Ok(true),
            Err(Error::UsernameTaken) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn insert(&self, name: Username, password: Password, role: Role) -> Result<UserId> {
        let hash = self.passwords.hash(password).await?;
        let inserted =
            self.db.transaction(move |conn| Box::pin(async move { conn.insert_user(&name, &hash, role).await })).await;
        match inserted {
            Err(DbError::Duplicate(_)) => Err(Error::UsernameTaken),
            other => Ok(other?),
        }
    }
}
