//! bcrypt, where it cannot starve the sale: on threads of its own, one core left free, and of lower priority.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::model::Password;

/// Who may wait for a turn; each takes half a second at cost 12, with the rest after it, or longer while a sale needs the
/// cores.
const WAITING_MOST: usize = 32;
/// Who finds no place to wait may come again after this.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// By how much the threads are nicer than the others: they take what the sale leaves.
#[cfg(target_os = "linux")]
const NICER: i32 = 19;
/// What is left of a bcrypt hash after version and cost: salt and digest. These belong to no password.
const NOBODYS_SALT_AND_DIGEST: &str = "abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui";

/// See the module.
#[derive(Clone)]
pub struct PasswordHasher {
    cost: u32,
    jobs: SyncSender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl PasswordHasher {
    /// `cores` of the machine; one is left to the sale where there are two or more.
    pub fn new(cost: u32, cores: usize) -> Self {
        let (jobs, waiting) = sync_channel(WAITING_MOST);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..(cores - 1).max(1) {
            let waiting = waiting.clone();
            std::thread::spawn(move || work(&waiting));
        }
        Self { cost, jobs }
    }

    /// Hashes a password.
    pub async fn hash(&self, password: Password) -> Result<String> {
        let cost = self.cost;
        self.take_turn(move || bcrypt::hash(password.expose(), cost)).await
    }

    /// Compares a password with a hash; with `None`, takes the same time and says no.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool> {
        let exists = hash.is_some();
        let hash = hash.unwrap_or_else(|| format!("$2b${:02}${NOBODYS_SALT_AND_DIGEST}", self.cost));
        Ok(self.take_turn(move || bcrypt::verify(password, &hash)).await? && exists)
    }

    async fn take_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> bcrypt::BcryptResult<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, done) = oneshot::channel();
        let job = move || {
            // Not for somebody who has hung up.
            if !reply.is_closed() {
                let _ = reply.send(work());
            }
        };
        self.jobs.try_send(Box::new(job)).map_err(|_| Error::RateLimited(RETRY_AFTER))?;
        done.await
            .map_err(|_| Error::Internal("hashing a password panicked".to_owned()))?
            .map_err(|error| Error::Internal(error.to_string()))
    }
}

/// Does what comes until nobody is left who could send more.
fn work(waiting: &Mutex<Receiver<Job>>) {
    // Elsewhere it would be the priority of the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICER) {
        tracing::warn!(%error, "Hashing passwords keeps the priority of everything else");
    }
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let begun = Instant::now();
        // Its caller finds that there is no reply.
        let _ = catch_unwind(AssertUnwindSafe(job));
        // Priority alone leaves a busy sale too little: this way a thread takes half of a core at most.
        std::thread::sleep(begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_again_and_nobodys_never_is() {
        let hasher = PasswordHasher::new(4, 2);
        let hash = hasher.hash(Password::parse("correct horse").unwrap()).await.unwrap();
        assert!(hasher.verify("correct horse".to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!hasher.verify("wrong horse".to_owned(), Some(hash)).await.unwrap());
        assert!(!hasher.verify("correct horse".to_owned(), None).await.unwrap());
    }

    #[tokio::test]
    async fn who_finds_no_place_to_wait_is_turned_away_at_once() {
        let hasher = PasswordHasher::new(4, 2);
        let (go_on, blocked) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = oneshot::channel();
        let hold = Box::new(move || {
            let _ = begin.send(());
            let _ = blocked.recv();
        });
        hasher.jobs.try_send(hold).unwrap();
        begun.await.unwrap();
        let waiting = (0..WAITING_MOST).map(|_| {
            let hasher = hasher.clone();
            tokio::spawn(async move { hasher.verify(String::new(), None).await })
        });
        let waiting: Vec<_> = waiting.collect();
        tokio::task::yield_now().await;
        assert!(matches!(hasher.verify(String::new(), None).await, Err(Error::RateLimited(_))));
        drop(go_on);
        for answer in waiting {
            assert!(!answer.await.unwrap().unwrap(), "who had a place is answered");
        }
    }
}
