//! bcrypt, where it cannot starve the sale: off the runtime's threads, and never more at once than leaves a core free.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::model::Password;

/// Who may wait for a turn; each takes up to a quarter of a second at cost 12.
const WAITING_MOST: usize = 32;
/// What is left of a bcrypt hash after version and cost: salt and digest. These belong to no password.
const NOBODYS_SALT_AND_DIGEST: &str = "abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui";

/// See the module.
#[derive(Clone)]
pub struct PasswordHasher {
    cost: u32,
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl PasswordHasher {
    /// `cores` of the machine; one is left to the sale where there are two or more.
    pub fn new(cost: u32, cores: usize) -> Self {
        Self { cost, turns: Arc::new(Semaphore::new((cores - 1).max(1))), waiting: Arc::default() }
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
        let place = WaitingPlace::take(&self.waiting)?;
        let turn = self.turns.clone().acquire_owned().await.map_err(|error| Error::Internal(error.to_string()))?;
        drop(place);
        tokio::task::spawn_blocking(move || {
            // Held to the end of the work, even if nobody waits for it any more.
            let _turn = turn;
            work()
        })
        .await
        .map_err(|error| Error::Internal(error.to_string()))?
        .map_err(|error| Error::Internal(error.to_string()))
    }
}

struct WaitingPlace(Arc<AtomicUsize>);

impl WaitingPlace {
    fn take(waiting: &Arc<AtomicUsize>) -> Result<Self> {
        if waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MOST {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::RateLimited(Duration::from_secs(2)));
        }
        Ok(Self(waiting.clone()))
    }
}

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
        let _all_turns = hasher.turns.clone().acquire_many_owned(1).await.unwrap();
        let waiting = (0..WAITING_MOST).map(|_| {
            let hasher = hasher.clone();
            tokio::spawn(async move { hasher.verify(String::new(), None).await })
        });
        let waiting: Vec<_> = waiting.collect();
        while hasher.waiting.load(Ordering::Relaxed) < WAITING_MOST {
            tokio::task::yield_now().await;
        }
        assert!(matches!(hasher.verify(String::new(), None).await, Err(Error::RateLimited(_))));
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
