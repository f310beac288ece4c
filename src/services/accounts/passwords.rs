//! bcrypt, where it cannot starve the sale: on threads of its own, one core left free, and of lower priority.
//!
//! Who waits for a hash stands in one of two [`Lines`]. A request is held open until its turn comes, or, when that would take longer
//! than [`HELD_FOR`], told how long; the place in line is kept.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use super::line::Joined;
use super::lines::{Job, Lines};
use crate::error::{Error, Limited, Result};
use crate::model::{Network, Password};

/// A request waits this long at most: shorter than what clients and proxies usually allow.
const HELD_FOR: Duration = Duration::from_secs(20);
/// The longest `Retry-After`. How fast the line moves depends on what else the machine does, so an estimate of minutes would often be
/// wrong. Whoever comes back has kept their place.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// By how much the threads are nicer than the others: they take what the sale leaves.
#[cfg(target_os = "linux")]
const NICER: i32 = 19;
/// What is left of a bcrypt hash after version and cost: salt and digest. These belong to no password.
const NOBODYS_SALT_AND_DIGEST: &str = "abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui";

/// Who wants a hash.
pub(super) struct Asker<'a> {
    /// From which address.
    pub(super) from: IpAddr,
    /// For which account: one hash at a time.
    pub(super) account: &'a str,
    /// Somebody has logged in to the account from there lately: strangers, however many, take only every other turn.
    pub(super) known: bool,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct PasswordHasher {
    cost: u32,
    handle: Arc<Handle>,
}

/// Ends the threads when it is dropped.
struct Handle(Arc<Shared>);

struct Shared {
    lines: Mutex<Lines>,
    wake: Condvar,
    threads: u32,
}

struct Ask<T, F> {
    work: F,
    reply: oneshot::Sender<Result<T>>,
}

impl<T: Send, F: FnOnce() -> Result<T> + Send> Job for Ask<T, F> {
    fn is_unwanted(&self) -> bool {
        self.reply.is_closed()
    }

    fn run(self: Box<Self>) {
        // Who has hung up meanwhile does not see it.
        let _ = self.reply.send((self.work)());
    }
}

impl PasswordHasher {
    /// `cores` of the machine; one is left to the sale where there are two or more.
    pub fn new(cost: u32, cores: usize) -> Self {
        let threads = (cores - 1).max(1);
        let shared =
            Arc::new(Shared { lines: Mutex::new(Lines::new(cost)), wake: Condvar::new(), threads: threads as u32 });
        for _ in 0..threads {
            let shared = shared.clone();
            std::thread::spawn(move || shared.work());
        }
        Self { cost, handle: Arc::new(Handle(shared)) }
    }

    /// Hashes a password, if `still_wanted` when its turn has come.
    pub(super) async fn hash(
        &self,
        asker: Asker<'_>,
        password: Password,
        still_wanted: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<String> {
        let cost = self.cost;
        self.take_turn(asker, move || {
            still_wanted()?;
            bcrypt::hash(password.expose(), cost).map_err(failed)
        })
        .await
    }

    /// Hashes a password of a start, when nobody else is there: without a turn, at an ordinary priority, and however long it
    /// takes, for a busy machine is no reason to give the start up.
    pub(super) async fn hash_at_start(&self, password: Password) -> Result<String> {
        let cost = self.cost;
        let hash = tokio::task::spawn_blocking(move || bcrypt::hash(password.expose(), cost));
        hash.await.map_err(|_| Error::Internal("hashing a password panicked".to_owned()))?.map_err(failed)
    }

    /// Compares a password with a hash; with `None`, takes the same time and says no. What is to be done with the answer
    /// is done before anybody else's turn comes, whether the asker is still there or not.
    pub(super) async fn verify(
        &self,
        asker: Asker<'_>,
        password: Password,
        hash: Option<String>,
        still_wanted: impl FnOnce() -> Result<()> + Send + 'static,
        answered: impl FnOnce(bool) + Send + 'static,
    ) -> Result<bool> {
        let exists = hash.is_some();
        let hash = hash.unwrap_or_else(|| format!("$2b${:02}${NOBODYS_SALT_AND_DIGEST}", self.cost));
        self.take_turn(asker, move || {
            still_wanted()?;
            let correct = bcrypt::verify(password.expose(), &hash).map_err(failed)? && exists;
            answered(correct);
            Ok(correct)
        })
        .await
    }

    async fn take_turn<T: Send + 'static>(
        &self,
        asker: Asker<'_>,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = &self.handle.0;
        let network = Network::of(asker.from);
        let (reply, done) = oneshot::channel();
        let joined = {
            let mut lines = shared.lines.lock();
            let patience = lines.turns_within(HELD_FOR, shared.threads);
            let job = Box::new(Ask { work, reply });
            match lines.line(asker.known).join(network, asker.account, job, patience) {
                Joined::Held(_) => Ok(()),
                Joined::ComeAgain(turns) | Joined::Full(turns) => Err(lines.time(turns, shared.threads)),
            }
        };
        joined.map_err(come_again)?;
        shared.wake.notify_one();
        match tokio::time::timeout(HELD_FOR, done).await {
            Ok(done) => done.map_err(|_| Error::Internal("hashing a password panicked".to_owned()))?,
            Err(_) => {
                let mut lines = shared.lines.lock();
                let turns = lines.line(asker.known).turns_before_account(network, asker.account);
                Err(come_again(lines.time(turns, shared.threads)))
            }
        }
    }
}

/// Early enough to be held until the turn comes.
fn come_again(turn_in: Duration) -> Error {
    let wait = turn_in.saturating_sub(HELD_FOR / 2).clamp(Duration::from_secs(1), LONGEST_WAIT);
    Error::RateLimited(Limited::Passwords, wait)
}

/// What this thread has had of a core.
fn time_worked() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

fn failed(error: bcrypt::BcryptError) -> Error {
    Error::Internal(error.to_string())
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lines.lock().ended = true;
        self.0.wake.notify_all();
    }
}

impl Shared {
    /// Does what comes until nobody is left who could send more.
    fn work(&self) {
        // Elsewhere it would be the priority of the whole process.
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::nice(NICER) {
            tracing::warn!(%error, "Hashing passwords keeps the priority of everything else");
        }
        while let Some((account, job)) = self.wait_for_work() {
            let (begun, worked_before) = (Instant::now(), time_worked());
            // Its caller finds that there is no reply.
            let _ = catch_unwind(AssertUnwindSafe(|| job.run()));
            let worked = time_worked().saturating_sub(worked_before);
            self.lines.lock().note_made(&account);
            // Another thread may have passed it over.
            self.wake.notify_one();
            // Priority alone leaves a busy sale too little: this way a thread takes half of a core at most.
            std::thread::sleep(worked);
            self.lines.lock().note_turn(begun.elapsed());
        }
    }

    fn wait_for_work(&self) -> Option<(String, Box<dyn Job>)> {
        let mut lines = self.lines.lock();
        loop {
            if lines.ended {
                return None;
            }
            if let Some(next) = lines.next() {
                return Some(next);
            }
            self.wake.wait(&mut lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn asker(account: &str, host: u8) -> Asker<'_> {
        Asker { from: [192, 0, 2, host].into(), account, known: false }
    }

    fn password(text: &str) -> Password {
        Password::parse(text).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_nobodys_never_is() {
        let hasher = PasswordHasher::new(4, 2);
        let hash = hasher.hash(asker("alice", 1), password("correct horse"), || Ok(())).await.unwrap();
        let verify = async |given: &str, hash: Option<String>| {
            let answered = Arc::new(Mutex::new(None));
            let told = answered.clone();
            let tell = move |correct| *told.lock() = Some(correct);
            let correct = hasher.verify(asker("alice", 1), password(given), hash, || Ok(()), tell).await.unwrap();
            assert_eq!(*answered.lock(), Some(correct));
            correct
        };
        assert!(verify("correct horse", Some(hash.clone())).await);
        assert!(!verify("wrong horse", Some(hash)).await);
        assert!(!verify("correct horse", None).await);
    }

    /// Holds the one thread until the sender is dropped, then lets others run in the order of the line.
    async fn hold(hasher: &PasswordHasher) -> mpsc::Sender<()> {
        let (go_on, blocked) = mpsc::channel::<()>();
        let (begin, begun) = oneshot::channel();
        let holder = hasher.clone();
        tokio::spawn(async move {
            let work = move || {
                let _ = begin.send(());
                let _ = blocked.recv();
                Ok(())
            };
            holder.take_turn(asker("holder", 99), work).await
        });
        begun.await.unwrap();
        go_on
    }

    /// A start on a busy machine once ended with "Too many tries": the lowest priority had no turn for 20 seconds.
    #[tokio::test]
    async fn a_start_waits_for_no_turn() {
        let hasher = PasswordHasher::new(4, 2);
        let _go_on = hold(&hasher).await;
        let hash = tokio::time::timeout(HELD_FOR / 2, hasher.hash_at_start(password("correct horse"))).await;
        assert!(bcrypt::verify("correct horse", &hash.unwrap().unwrap()).unwrap());
    }

    #[tokio::test]
    async fn one_address_with_many_log_ins_does_not_keep_another_waiting() {
        let hasher = PasswordHasher::new(4, 2);
        let go_on = hold(&hasher).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let ask = |host: u8, number: usize| {
            let (hasher, order) = (hasher.clone(), order.clone());
            tokio::spawn(async move {
                let account = format!("{host}-{number}");
                let work = move || {
                    order.lock().push(host);
                    Ok(())
                };
                hasher.take_turn(asker(&account, host), work).await
            })
        };
        let mut asked: Vec<_> = (0..40).map(|number| ask(1, number)).collect();
        tokio::task::yield_now().await;
        asked.push(ask(2, 0));
        tokio::task::yield_now().await;
        drop(go_on);
        for answer in asked {
            answer.await.unwrap().unwrap();
        }
        assert!(order.lock().iter().position(|host| *host == 2).unwrap() <= 1);
    }

    /// Where these threads had next to nothing of the machine, a crowd was told to come again each second, for the first turn was
    /// not over and a guess counted until then.
    #[tokio::test]
    async fn a_turn_that_takes_long_counts_before_it_is_over() {
        let hasher = PasswordHasher::new(4, 2);
        let _go_on = hold(&hasher).await;
        tokio::time::sleep(Duration::from_millis(240)).await;
        let lines = hasher.handle.0.lines.lock();
        assert!(lines.time(100, 1) >= Duration::from_secs(3), "{:?}", lines.time(100, 1));
        assert!(lines.turns_within(Duration::from_secs(1), 1) <= 33);
    }

    #[tokio::test]
    async fn who_would_wait_too_long_is_told_how_long_and_who_panics_harms_nobody() {
        let hasher = PasswordHasher::new(4, 2);
        let panicked = hasher.take_turn::<()>(asker("alice", 1), || panic!("in a test")).await;
        assert!(matches!(panicked, Err(Error::Internal(_))));
        let go_on = hold(&hasher).await;
        hasher.handle.0.lines.lock().turn = Duration::from_secs(7);
        let ask = |number: usize| {
            let hasher = hasher.clone();
            tokio::spawn(async move { hasher.take_turn(asker(&number.to_string(), 1), move || Ok(number)).await })
        };
        let held: Vec<_> = (0..3).map(ask).collect();
        tokio::task::yield_now().await;
        let Err(Error::RateLimited(_, wait)) = ask(3).await.unwrap() else { panic!("is not told to come again") };
        assert_eq!(wait, Duration::from_secs(3 * 7 - 10), "in time to be held until the turn comes");
        drop(go_on);
        for answer in held {
            answer.await.unwrap().unwrap();
        }
        assert_eq!(ask(3).await.unwrap().unwrap(), 3);
    }
}
