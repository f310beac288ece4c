//! Accounts: registering, logging in and out, passwords, and the administrator of the first start.
//!
//! Whose request something is, [`Authenticator`] says; who may try how often, [`limits`]; who waits how long for a password
//! to be hashed, [`mod@line`].

mod authenticator;
mod directory;
mod external;
mod failures;
mod jwt;
mod keys;
mod limits;
mod line;
mod lines;
mod passwords;
mod session;
mod signature;
mod tokens;
mod withdrawals;

pub use authenticator::{Authenticator, Identification};
pub use passwords::PasswordHasher;
pub use session::{Issued, Session};
pub use tokens::{Identity, OwnToken, Tokens};

use std::net::IpAddr;
use std::sync::Arc;

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokio::sync::SetOnce;

use self::failures::FailureLog;
use self::limits::AuthLimiter;
use self::passwords::Asker;
use crate::config::{self, Config, Registration, Users};
use crate::db::{Db, DbError};
use crate::error::{Error, Result};
use crate::model::{Account, Password, Role, UserId, Username};
use crate::telemetry::Metrics;
use utoipa::ToSchema;

/// See the module.
pub struct Accounts {
    db: Db,
    tokens: Arc<Tokens>,
    authenticator: Arc<Authenticator>,
    passwords: PasswordHasher,
    limiter: AuthLimiter,
    failures: FailureLog,
    metrics: Arc<Metrics>,
    users: Users,
    registration: Registration,
    /// As names are compared.
    admin_name: String,
    admin_exists: SetOnce<()>,
}

/// A name and a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    #[schema(min_length = 3, max_length = 32, pattern = "^[A-Za-z0-9_.-]+$")]
    username: String,
    /// 8 to 72 bytes of UTF-8, none of them zero.
    #[schema(min_length = 8, max_length = 72, pattern = r"^[^\u0000]*$", format = Password)]
    password: String,
}

/// A new password, and the one before.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    #[schema(format = Password)]
    current: String,
    /// 8 to 72 bytes of UTF-8, none of them zero.
    #[schema(min_length = 8, max_length = 72, pattern = r"^[^\u0000]*$", format = Password)]
    new: String,
}

/// Who a user is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Profile {
    /// The id.
    pub id: UserId,
    /// The name; `null` for a user of the shop's own directory.
    #[schema(required)]
    pub username: Option<String>,
    /// What they may do.
    pub role: Role,
}

/// What a log-in yields.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoggedIn {
    /// The token.
    pub access_token: String,
    /// Always `Bearer`.
    #[schema(pattern = "^Bearer$")]
    pub token_type: &'static str,
    /// Seconds.
    pub expires_in: u64,
}

/// What a registration yields.
#[derive(Debug, Serialize, ToSchema)]
pub struct Registered {
    /// Who is new.
    #[serde(flatten)]
    pub profile: Profile,
    /// So that nobody has to log in at once.
    #[serde(flatten)]
    pub logged_in: LoggedIn,
}

fn invalid(field: &str, problem: &str) -> Error {
    Error::Invalid(format!("{field}: {problem}"))
}

impl Accounts {
    /// Accounts as configured.
    pub fn new(
        db: Db,
        tokens: Arc<Tokens>,
        authenticator: Arc<Authenticator>,
        passwords: PasswordHasher,
        metrics: Arc<Metrics>,
        config: &Config,
    ) -> Self {
        Self {
            db,
            tokens,
            authenticator,
            passwords,
            limiter: AuthLimiter::new(config.limits.auth_per_minute),
            failures: FailureLog::default(),
            metrics,
            users: config.auth.users,
            registration: config.auth.registration,
            admin_name: config.admin.username.to_ascii_lowercase(),
            admin_exists: SetOnce::new(),
        }
    }

    /// Whether anybody may register.
    pub fn registers(&self) -> bool {
        self.users == Users::Local && self.registration == Registration::Open
    }

    /// Makes an account for a buyer.
    pub async fn register(&self, credentials: Credentials, from: IpAddr) -> Result<Registered> {
        let name = Username::parse(&credentials.username).map_err(|problem| invalid("username", problem))?;
        let password = Password::parse(&credentials.password).map_err(|problem| invalid("password", problem))?;
        self.limiter.registration(from)?;
        // Also before that account is there.
        if name.key() == self.admin_name || self.find_by_name(&name).await?.is_some() {
            self.limiter.registered(from);
            return Err(Error::UsernameTaken);
        }
        let key = name.key();
        let limiter = self.limiter.clone();
        let still_wanted = move || limiter.registration(from).map(|()| limiter.registered(from));
        let asker = Asker { from, account: &key, known: false };
        let hash = self.passwords.hash(asker, password, still_wanted).await?;
        let id = self.insert(name.clone(), hash, Role::Buyer).await?;
        tracing::debug!(user.id = %id, "Registered a buyer");
        let identity = Identity { user_id: id, role: Role::Buyer };
        let profile = Profile { id, username: Some(name.as_str().to_owned()), role: Role::Buyer };
        Ok(Registered { profile, logged_in: self.logged_in(identity, 0)? })
    }

    /// Checks a name and a password. A name that is unknown takes as long as a password that is wrong.
    pub async fn log_in(&self, credentials: Credentials, from: IpAddr) -> Result<LoggedIn> {
        let name = Username::parse(&credentials.username).ok();
        let outcome = self.try_log_in(name.as_ref(), &credentials.password, from).await;
        self.metrics.log_in(match &outcome {
            Ok(_) => "success",
            Err(Error::InvalidCredentials) => "invalid_credentials",
            Err(Error::RateLimited(..)) => "rate_limited",
            Err(Error::Unavailable(_) | Error::Unreadable(_)) => "unavailable",
            Err(_) => "internal",
        });
        if let Err(Error::InvalidCredentials) = outcome {
            self.failures.note(from, name.as_ref());
        }
        outcome
    }

    async fn try_log_in(&self, name: Option<&Username>, password: &str, from: IpAddr) -> Result<LoggedIn> {
        let Some(name) = name else {
            // No account has such a name: whoever waits learns nothing by it.
            self.limiter.impossible_log_in(from)?;
            self.limiter.log_in_failed(from, None);
            return Err(Error::InvalidCredentials);
        };
        self.limiter.log_in(from, name)?;
        self.admin_exists.wait().await;
        let account = self.find_by_name(name).await?;
        let account = account.filter(|account| self.users == Users::Local || account.role == Role::Admin);
        let hash =
            account.as_ref().filter(|account| account.has_password()).map(|account| account.password_hash.clone());
        self.verify(name, from, password, hash).await?;
        let account = account.ok_or(Error::InvalidCredentials)?;
        let identity = Identity { user_id: account.id, role: account.role };
        self.logged_in(identity, account.token_generation)
    }

    /// Waits for a turn and compares a password with a hash, or with nothing, which takes as long. Counts what comes out.
    async fn verify(&self, name: &Username, from: IpAddr, password: &str, hash: Option<String>) -> Result<()> {
        let Ok(password) = Password::parse(password) else {
            // No account has such a password.
            self.limiter.log_in_failed(from, Some(name));
            return Err(Error::InvalidCredentials);
        };
        let key = name.key();
        let asker = Asker { from, account: &key, known: self.limiter.is_known(from, name) };
        // Again when its turn has come: others may have failed while it waited.
        let (limiter, account) = (self.limiter.clone(), name.clone());
        let still_wanted = move || limiter.log_in(from, &account);
        let (limiter, account) = (self.limiter.clone(), name.clone());
        let answered = move |correct| {
            if correct { limiter.logged_in(from, &account) } else { limiter.log_in_failed(from, Some(&account)) }
        };
        let correct = self.passwords.verify(asker, password, hash, still_wanted, answered).await?;
        if correct { Ok(()) } else { Err(Error::InvalidCredentials) }
    }

    fn logged_in(&self, identity: Identity, generation: i64) -> Result<LoggedIn> {
        let access_token = self.tokens.issue_in(identity, generation)?;
        Ok(LoggedIn { access_token, token_type: "Bearer", expires_in: self.tokens.lifetime().as_secs() })
    }

    /// Withdraws all tokens that the user has by now.
    pub async fn log_out(&self, session: Session) -> Result<()> {
        self.authenticator.withdraw(session).await
    }

    /// Gives the user another password, and withdraws all tokens that there are by now.
    pub async fn change_password(&self, session: Session, change: PasswordChange, from: IpAddr) -> Result<()> {
        let new = Password::parse(&change.new).map_err(|problem| invalid("new", problem))?;
        let id = session.identity.user_id;
        let account = match session.issued {
            Issued::Here { .. } => self.find(id).await?,
            // Their password is the shop's.
            Issued::Elsewhere { .. } => None,
        };
        let account = account.ok_or(Error::InvalidCredentials)?;
        let name = Username::parse(&account.username).map_err(|problem| Error::Internal(problem.to_owned()))?;
        self.limiter.log_in(from, &name)?;
        let correct = self.verify(&name, from, &change.current, Some(account.password_hash.clone())).await;
        if let Err(Error::InvalidCredentials) = correct {
            self.failures.note(from, Some(&name));
        }
        correct?;
        let key = name.key();
        let asker = Asker { from, account: &key, known: true };
        let hash = self.passwords.hash(asker, new, || Ok(())).await?;
        let generation = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    if !conn.replace_password(id, &account.password_hash, &hash).await? {
                        // Another one was faster, so what was given is not the current one.
                        return Err(Error::InvalidCredentials);
                    }
                    let generation = conn.next_token_generation(id).await?;
                    conn.insert_token_withdrawal(id, generation).await?;
                    Ok(generation)
                })
            })
            .await?;
        self.authenticator.note_withdrawn(id, generation);
        tracing::info!(user.id = %id, "Changed a password");
        Ok(())
    }

    /// Who the bearer of a token is.
    pub async fn profile(&self, Session { identity, issued }: Session) -> Result<Profile> {
        let account = match issued {
            Issued::Here { .. } => self.find(identity.user_id).await?,
            // The shop's directory has its own names; there is nothing to ask the database for.
            Issued::Elsewhere { .. } => None,
        };
        Ok(Profile { id: identity.user_id, username: account.map(|account| account.username), role: identity.role })
    }

    /// Makes the administrator unless an account of that name exists; says whether it did. Nobody logs in before.
    pub async fn ensure_admin(&self, settings: &config::Admin) -> Result<bool> {
        let made = self.make_admin(settings).await?;
        // Already set when this is called a second time.
        let _ = self.admin_exists.set(());
        Ok(made)
    }

    /// The name first, so that nobody registers it while the password is hashed; then the password. Instances that start
    /// together make one account, and whichever comes after a crash in between ends it.
    async fn make_admin(&self, settings: &config::Admin) -> Result<bool> {
        let name = Username::parse(&settings.username).map_err(|problem| invalid("admin.username", problem))?;
        loop {
            match self.find_by_name(&name).await? {
                Some(account) if account.role != Role::Admin => {
                    let problem = format!("`{}` is the account of a buyer; choose another name", name.as_str());
                    return Err(invalid("admin.username", &problem));
                }
                Some(account) if !account.has_password() => {
                    let hash = self.hash_of_admin(settings).await?;
                    let set = self.db.transaction::<_, DbError, _>(move |conn| {
                        Box::pin(async move { conn.replace_password(account.id, Account::NO_PASSWORD, &hash).await })
                    });
                    return Ok(set.await?);
                }
                Some(_) => return Ok(false),
                None => {
                    Password::parse(settings.password.expose_secret())
                        .map_err(|problem| invalid("admin.password", problem))?;
                    match self.insert(name.clone(), Account::NO_PASSWORD.to_owned(), Role::Admin).await {
                        // Another instance was faster; see what it has made.
                        Ok(_) | Err(Error::UsernameTaken) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    async fn hash_of_admin(&self, settings: &config::Admin) -> Result<String> {
        let password = Password::parse(settings.password.expose_secret());
        let password = password.map_err(|problem| invalid("admin.password", problem))?;
        self.passwords.hash_at_start(password).await
    }

    async fn find_by_name(&self, name: &Username) -> Result<Option<Account>> {
        let name = name.clone();
        Ok(self.db.read::<_, DbError, _>(|conn| Box::pin(async move { conn.find_user_by_name(&name).await })).await?)
    }

    async fn find(&self, id: UserId) -> Result<Option<Account>> {
        Ok(self.db.read::<_, DbError, _>(move |conn| Box::pin(conn.find_user(id))).await?)
    }

    async fn insert(&self, name: Username, hash: String, role: Role) -> Result<UserId> {
        let inserted =
            self.db.transaction(move |conn| Box::pin(async move { conn.insert_user(&name, &hash, role).await })).await;
        match inserted {
            Err(DbError::Duplicate(_)) => Err(Error::UsernameTaken),
            other => Ok(other?),
        }
    }
}
