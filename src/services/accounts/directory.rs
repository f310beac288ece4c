//! Numbers for the users of the shop's own directory: the gate, the queue and the orders know users by numbers only.
//!
//! A number is given once, in the database, to an issuer and a subject, and never again to another. Here are those who came
//! lately; whoever is not among them is asked for together with all who come at the same time: one query, and for those
//! who come for the first time one insert, however many they are. Who cannot be asked for in time is told to come again
//! (503), never taken for somebody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::db::{Db, DbError, DbResult, ExternalUser};
use crate::error::{Error, Result};

/// Users remembered at most: some 40 MiB.
const MAX_KNOWN: u64 = 200_000;
/// Users asked for in one query.
const MAX_ASKED: usize = 500;
/// Requests that wait for a query at most.
const MAX_QUESTIONS: usize = 10_000;
/// How long one of them waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// Inserts of several instances can be in each other's way.
const TRIES: usize = 3;

type Answer = std::result::Result<ExternalUser, Arc<DbError>>;

struct Question {
    subject: String,
    reply: oneshot::Sender<Answer>,
}

/// See the module.
pub(super) struct Directory {
    known: Cache<String, ExternalUser>,
    questions: mpsc::Sender<Question>,
}

/// Asks the database.
pub(super) struct Asking {
    db: Db,
    issuer: String,
    known: Cache<String, ExternalUser>,
    questions: Mutex<mpsc::Receiver<Question>>,
}

impl Directory {
    /// Of the users of `issuer`, each remembered for `kept`; the second must run.
    pub(super) fn new(db: Db, issuer: String, kept: Duration) -> (Self, Asking) {
        let known = Cache::builder().max_capacity(MAX_KNOWN).time_to_live(kept).build();
        let (sender, questions) = mpsc::channel(MAX_QUESTIONS);
        (
            Self { known: known.clone(), questions: sender },
            Asking { db, issuer, known, questions: Mutex::new(questions) },
        )
    }

    /// The user of a subject; made if there is none.
    pub(super) async fn find(&self, subject: &str) -> Result<ExternalUser> {
        if let Some(user) = self.known.get(subject) {
            return Ok(user);
        }
        let unavailable = |problem: &str| Error::Unavailable(format!("the shop's directory: {problem}"));
        let (reply, answer) = oneshot::channel();
        let question = Question { subject: subject.to_owned(), reply };
        self.questions.try_send(question).map_err(|_| unavailable("too many users come at once"))?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(Ok(user))) => Ok(user),
            Ok(Ok(Err(error))) if !error.is_transient() => Err(Error::Internal(error.to_string())),
            Ok(Ok(Err(error))) => Err(unavailable(&error.to_string())),
            Ok(Err(_)) => Err(unavailable("nobody asks for its users")),
            Err(_) => Err(unavailable("no answer in time")),
        }
    }
}

impl Asking {
    /// Answers until `stop`.
    pub(super) async fn run(&self, stop: CancellationToken) {
        let (mut taken, mut questions) = (Vec::new(), self.questions.lock().await);
        while let Some(1..) = stop.run_until_cancelled(questions.recv_many(&mut taken, MAX_ASKED)).await {
            // Who has hung up meanwhile needs no number.
            taken.retain(|question| !question.reply.is_closed());
            let mut subjects: Vec<String> = taken.iter().map(|question| question.subject.clone()).collect();
            subjects.sort_unstable();
            subjects.dedup();
            let mut tries = 0;
            let found = loop {
                tries += 1;
                match self.find_or_insert(subjects.clone()).await {
                    Err(error) if error.is_transient() && tries < TRIES => {}
                    found => break found.map_err(Arc::new),
                }
            };
            for Question { subject, reply } in taken.drain(..) {
                let answer = match &found {
                    Ok(users) => users
                        .get(&subject)
                        .copied()
                        .ok_or_else(|| Arc::new(DbError::Unreachable("a user was neither found nor made".to_owned()))),
                    Err(error) => Err(error.clone()),
                };
                if let Ok(user) = answer {
                    self.known.insert(subject, user);
                }
                let _ = reply.send(answer);
            }
        }
    }

    async fn find_or_insert(&self, subjects: Vec<String>) -> DbResult<HashMap<String, ExternalUser>> {
        let mut found = self.find(subjects.clone()).await?;
        let new: Vec<String> = subjects.into_iter().filter(|subject| !found.contains_key(subject)).collect();
        if !new.is_empty() {
            let (issuer, inserted) = (self.issuer.clone(), new.clone());
            self.db
                .transaction(move |conn| Box::pin(async move { conn.insert_external_users(&issuer, inserted).await }))
                .await?;
            // Read rather than counted: another instance may have inserted some of them.
            found.extend(self.find(new).await?);
        }
        Ok(found)
    }

    async fn find(&self, subjects: Vec<String>) -> DbResult<HashMap<String, ExternalUser>> {
        let issuer = self.issuer.clone();
        self.db.run_first(move |conn| Box::pin(async move { conn.find_external_users(&issuer, &subjects).await })).await
    }
}
