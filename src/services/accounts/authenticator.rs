//! Who sends a request: the one place that decides whether a token is believed.
//!
//! A buyer's token costs no look-up, so that a purchase does not either; the first of each token of the shop's directory
//! costs one. An administrator is looked up, for there are few: who was demoted or deleted, has logged out or changed
//! the password is out within [`ADMIN_KNOWN_FOR`]. While the database is away administrators are told to come again
//! (503): nothing that they do works without it, and letting somebody in who may be one no longer is the greater harm.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use moka::sync::Cache;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::external::External;
use super::session::{Issued, Session};
use super::tokens::{OwnToken, Tokens};
use super::withdrawals::{Poll, Withdrawals};
use crate::config;
use crate::db::{Db, DbError};
use crate::error::{Error, Result};
use crate::model::{Role, UserId};
use crate::supervision::Supervisor;

/// For how long an administrator is believed after a look.
const ADMIN_KNOWN_FOR: Duration = Duration::from_secs(1);
const MAX_ADMINS: u64 = 1_000;

/// See the module.
pub struct Authenticator {
    tokens: Arc<Tokens>,
    withdrawals: Withdrawals,
    external: Option<Arc<External>>,
    db: Db,
    /// The generation of each account that is an administrator's.
    admins: Cache<UserId, i64>,
}

/// Who sends a token.
pub enum Identification {
    /// Known at once.
    Known(Result<Session>),
    /// Known after a look-up.
    LookUp(BoxFuture<'static, Result<Session>>),
}

impl Authenticator {
    /// Believes tokens as configured. Reads what has been withdrawn so far.
    pub async fn new(settings: &config::Auth, tokens: Arc<Tokens>, db: Db) -> std::result::Result<Arc<Self>, String> {
        let withdrawals = Withdrawals::new(tokens.lifetime());
        let read = Poll::new(db.clone()).once(&withdrawals).await;
        read.map_err(|error| format!("reading withdrawn tokens: {error}"))?;
        let external = match settings.users {
            config::Users::Local => None,
            config::Users::External => Some(Arc::new(External::new(&settings.external, db.clone())?)),
        };
        let admins = Cache::builder().max_capacity(MAX_ADMINS).time_to_live(ADMIN_KNOWN_FOR).build();
        Ok(Arc::new(Self { tokens, withdrawals, external, db, admins }))
    }

    /// Starts what keeps it up to date.
    pub fn keep_fresh(self: &Arc<Self>, supervisor: &Supervisor, tasks: &TaskTracker, stop: &CancellationToken) {
        let (this, stopped) = (self.clone(), stop.clone());
        supervisor.keep("token-withdrawals", tasks, stop, move || {
            let (this, stop) = (this.clone(), stopped.clone());
            async move { Poll::new(this.db.clone()).run(&this.withdrawals, stop).await }
        });
        if let Some(external) = &self.external {
            external.keep_fresh(supervisor, tasks, stop);
        }
    }

    /// Whose a token is.
    pub fn identify(self: &Arc<Self>, token: &str) -> Identification {
        if let Some(session) = self.external.as_ref().and_then(|external| external.known(token)) {
            return Identification::Known(self.if_not_withdrawn(session));
        }
        let own = match (self.tokens.check(token), &self.external) {
            (Ok(own), None) => own,
            // Buyers are the shop's.
            (Ok(own), Some(_)) if own.identity.role == Role::Admin => own,
            (Ok(_), Some(_)) => return Identification::Known(Err(Error::Unauthorized)),
            (Err(error), None) => return Identification::Known(Err(error)),
            (Err(_), Some(external)) => return self.identify_elsewhere(external, token),
        };
        let OwnToken { identity, generation } = own;
        let session = Session { identity, issued: Issued::Here { generation } };
        match (self.if_not_withdrawn(session), identity.role) {
            (Ok(session), Role::Admin) => {
                let this = self.clone();
                Identification::LookUp(Box::pin(async move { this.if_still_admin(session, generation).await }))
            }
            (known, _) => Identification::Known(known),
        }
    }

    fn identify_elsewhere(self: &Arc<Self>, external: &Arc<External>, token: &str) -> Identification {
        let (this, external, token) = (self.clone(), external.clone(), token.to_owned());
        Identification::LookUp(Box::pin(async move { this.if_not_withdrawn(external.check(&token).await?) }))
    }

    fn if_not_withdrawn(&self, session: Session) -> Result<Session> {
        if self.withdrawals.allow(session.identity.user_id, session.issued.mark()) {
            Ok(session)
        } else {
            Err(Error::Unauthorized)
        }
    }

    async fn if_still_admin(&self, session: Session, generation: i64) -> Result<Session> {
        let id = session.identity.user_id;
        let current = match self.admins.get(&id) {
            Some(generation) => Some(generation),
            None => {
                let account = self.db.run_first(move |conn| Box::pin(conn.find_user(id))).await?;
                let current =
                    account.filter(|account| account.role == Role::Admin).map(|account| account.token_generation);
                // Only who is one: the others are few, and may become one.
                if let Some(generation) = current {
                    self.admins.insert(id, generation);
                }
                current
            }
        };
        if current == Some(generation) { Ok(session) } else { Err(Error::Unauthorized) }
    }

    /// Withdraws all tokens of a user that are older than this moment, on every instance. A token issued elsewhere within
    /// the same second is withdrawn too.
    pub async fn withdraw(&self, session: Session) -> Result<()> {
        let id = session.identity.user_id;
        let valid_from = match session.issued {
            Issued::Here { generation } => generation.saturating_add(1),
            Issued::Elsewhere { at } => super::tokens::now().max(at).saturating_add(1),
        };
        self.db
            .transaction::<_, DbError, _>(move |conn| {
                Box::pin(async move {
                    let new = match session.issued {
                        // A token without an account has no other way to end.
                        Issued::Here { generation } => {
                            conn.begin_token_generation(id, generation).await? || conn.find_user(id).await?.is_none()
                        }
                        Issued::Elsewhere { .. } => conn.withdraw_external_tokens(id, valid_from).await?,
                    };
                    if new { conn.insert_token_withdrawal(id, valid_from).await } else { Ok(()) }
                })
            })
            .await?;
        self.note_withdrawn(id, valid_from);
        Ok(())
    }

    /// Notes here what has been withdrawn in the database.
    pub(super) fn note_withdrawn(&self, user: UserId, valid_from: i64) {
        self.withdrawals.note(user, valid_from, super::tokens::now());
        self.admins.invalidate(&user);
    }
}
