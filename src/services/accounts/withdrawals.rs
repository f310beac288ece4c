//! Tokens that a log-out or a new password has withdrawn: a table in memory, which every instance fills from the database.
//!
//! A purchase costs one look at a number while nobody has logged out, and one at the table then; never a query. The
//! table is re-read every [`POLL_EVERY`]. While the database is away nobody can log out either, so what is missing here
//! is at most what others wrote after this instance alone lost it; buyers go on buying meanwhile. Administrators do not
//! depend on it: [`super::authenticator`] looks each of them up.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use super::tokens::now;
use crate::db::{Db, DbResult, TokenWithdrawal};
use crate::model::{Timestamp, UserId};

/// Between two looks at the database.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// After one that failed.
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// Rows read at once.
const PAGE: i64 = 10_000;
/// Rows deleted at once.
const PURGED_AT_ONCE: i64 = 500;
/// A row that is older than this, whatever the clock of who wrote it, was there before any that is written now.
const LONG_AGO_SECONDS: i64 = 600;
/// A row may become visible after one of a greater id. It is read again for this long, which no transaction outlives.
const LATE_ROWS: Duration = Duration::from_secs(30);
/// Between two deletions of what no token is old enough for.
const PURGE_EVERY: Duration = Duration::from_secs(60);
/// How much longer than any token lives a withdrawal is kept: for clocks that differ, and for what is cached of tokens
/// that we did not issue.
const KEPT_LONGER: Duration = Duration::from_secs(2 * 3600);
/// Without an answer for this long, the log says so.
const WARN_AFTER: Duration = Duration::from_secs(5);
/// Threads that serve requests seldom meet in one of them.
const SHARDS: usize = 16;

type Shard = RwLock<HashMap<UserId, Withdrawn, RandomState>>;

#[derive(Clone, Copy)]
struct Withdrawn {
    valid_from: i64,
    /// Seconds since 1970.
    at: i64,
}

/// See the module.
pub(super) struct Withdrawals {
    users: AtomicUsize,
    shards: [Shard; SHARDS],
    kept: Duration,
}

impl Withdrawals {
    /// Nobody's yet. Kept until no token is left that they are about.
    pub(super) fn new(token_lifetime: Duration) -> Self {
        Self { users: AtomicUsize::new(0), shards: Default::default(), kept: token_lifetime + KEPT_LONGER }
    }

    /// Whether a user's token of this generation, or of this second, is still good.
    pub(super) fn allow(&self, user: UserId, issued: i64) -> bool {
        if self.users.load(Ordering::Relaxed) == 0 {
            return true;
        }
        let shard = self.shard(user).read();
        shard.get(&user).is_none_or(|withdrawn| issued >= withdrawn.valid_from)
    }

    /// Notes a withdrawal; an older one changes nothing.
    pub(super) fn note(&self, user: UserId, valid_from: i64, at: i64) {
        let mut shard = self.shard(user).write();
        let noted = shard.entry(user).or_insert_with(|| {
            self.users.fetch_add(1, Ordering::Relaxed);
            Withdrawn { valid_from, at }
        });
        noted.valid_from = noted.valid_from.max(valid_from);
        noted.at = noted.at.max(at);
    }

    fn forget_before(&self, at: i64) {
        for shard in &self.shards {
            let mut shard = shard.write();
            let before = shard.len();
            shard.retain(|_, withdrawn| withdrawn.at >= at);
            self.users.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }

    fn shard(&self, user: UserId) -> &Shard {
        &self.shards[user.get() as usize % SHARDS]
    }
}

/// Reads what other instances have withdrawn.
pub(super) struct Poll {
    db: Db,
    /// Rows up to this id have been read for good.
    settled: i64,
    /// Since when which id has been the greatest, newest last.
    recent: VecDeque<(Instant, i64)>,
    purged: Instant,
}

impl Poll {
    /// Has read nothing.
    pub(super) fn new(db: Db) -> Self {
        Self { db, settled: 0, recent: VecDeque::new(), purged: Instant::now() }
    }

    /// Fills the table until `stop`.
    pub(super) async fn run(mut self, withdrawals: &Withdrawals, stop: CancellationToken) {
        let (mut answered, mut warned, mut pause) = (Instant::now(), false, POLL_EVERY);
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            match self.once(withdrawals).await {
                Ok(()) => {
                    if warned {
                        tracing::info!("Withdrawn tokens are read again");
                    }
                    (answered, warned, pause) = (Instant::now(), false, POLL_EVERY);
                }
                Err(error) => {
                    pause = TRY_AGAIN;
                    if !warned && answered.elapsed() > WARN_AFTER {
                        warned = true;
                        let problem = error.to_string();
                        tracing::warn!(
                            problem,
                            "Cannot read which tokens were withdrawn elsewhere (log-outs, new passwords); they are accepted \
                             here until it can"
                        );
                    }
                }
            }
        }
    }

    /// Reads what is new, and now and then deletes what is old.
    pub(super) async fn once(&mut self, withdrawals: &Withdrawals) -> DbResult<()> {
        let begun = Instant::now();
        let (mut after, long_ago) = (self.settled, now() - LONG_AGO_SECONDS);
        loop {
            let page = self.db.run_first(move |conn| Box::pin(conn.token_withdrawals_after(after, PAGE))).await?;
            for TokenWithdrawal { id, user_id, valid_from, created_at } in &page.rows {
                let at = created_at.unix_ms() / 1000;
                withdrawals.note(*user_id, *valid_from, at);
                if at < long_ago {
                    self.settled = *id;
                }
            }
            after = page.keys.last().copied().unwrap_or(after);
            if (page.count as i64) < PAGE {
                break;
            }
        }
        if self.recent.back().is_none_or(|(_, greatest)| *greatest < after) {
            self.recent.push_back((begun, after));
        }
        while self.recent.front().is_some_and(|(since, _)| begun.duration_since(*since) > LATE_ROWS) {
            self.settled = self.recent.pop_front().map_or(0, |(_, id)| id).max(self.settled);
        }
        if self.purged.elapsed() > PURGE_EVERY {
            self.purged = begun;
            self.purge(withdrawals).await?;
        }
        Ok(())
    }

    async fn purge(&self, withdrawals: &Withdrawals) -> DbResult<()> {
        let oldest = now() - withdrawals.kept.as_secs() as i64;
        withdrawals.forget_before(oldest);
        let Some(oldest) = Timestamp::from_unix_ms(oldest * 1000) else { return Ok(()) };
        while self.db.transaction(move |conn| Box::pin(conn.delete_token_withdrawals(oldest, PURGED_AT_ONCE))).await?
            == PURGED_AT_ONCE as usize
        {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_tokens_of_who_logged_out_are_refused_until_none_is_left() {
        let withdrawals = Withdrawals::new(Duration::from_secs(60));
        let [alice, bob] = [7, 23].map(|id| UserId::try_from(id).unwrap());
        assert!(withdrawals.allow(alice, 0));
        withdrawals.note(alice, 2, 1_000);
        withdrawals.note(alice, 1, 900);
        assert!(!withdrawals.allow(alice, 1) && withdrawals.allow(alice, 2));
        assert!(withdrawals.allow(bob, 0), "of the same shard");
        withdrawals.forget_before(1_001);
        assert!(withdrawals.allow(alice, 0));
        assert_eq!(withdrawals.users.load(Ordering::Relaxed), 0);
    }
}
