//! Whom this instance has admitted. As long as a gate's `epoch` and `seq` stay the same, no reservation is removed from it. So
//! if this instance admitted as many buyers meanwhile as the gate has, it knows all of them.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::super::replies::GateVersion;
use crate::model::{ProductId, UserId};

/// A sale that nobody asked about for this long is not watched any more. Whom this instance has admitted to a sale is forgotten, too,
/// this long after the last one.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(10);
/// Sales that are watched at most: Redis is asked five things about each twelve times a second.
pub(super) const MAX_SALES: usize = 256;
/// Buyers that are remembered at most, of all sales together: about 20 MiB in copies, and 8 MiB of admitted ones.
pub(super) const MAX_BUYERS: usize = 1_000_000;

/// Some users.
pub(super) type Users = HashSet<UserId, RandomState>;

/// See the module.
#[derive(Default)]
pub(super) struct AdmittedHere(Mutex<Admitted>);

#[derive(Default)]
struct Admitted {
    sales: HashMap<ProductId, AdmittedUsers, RandomState>,
    /// Number of users in all sales together.
    users: usize,
}

/// Whom this instance has admitted at one version of a gate.
struct AdmittedUsers {
    version: GateVersion,
    /// A step that was repeated names its users again.
    users: Vec<UserId>,
    last: Instant,
}

impl AdmittedHere {
    /// Redis has given these users units at that version of the gate.
    pub(super) fn note(&self, product: ProductId, version: GateVersion, users: impl Iterator<Item = UserId>) {
        let mut all = self.0.lock();
        let Admitted { sales, users: have } = &mut *all;
        if sales.len() >= MAX_SALES && !sales.contains_key(&product) {
            return;
        }
        let last = Instant::now();
        let new = || AdmittedUsers { version, users: Vec::new(), last };
        let admitted = sales.entry(product).or_insert_with(new);
        if admitted.version != version || *have > MAX_BUYERS {
            *have -= admitted.users.len();
            *admitted = new();
        }
        let before = admitted.users.len();
        admitted.users.extend(users);
        *have += admitted.users.len() - before;
        admitted.last = last;
    }

    /// All buyers of a full sale, if this instance has admitted them: the gate has so many `buyers` at this version. They are not noted any longer in either case, for a
    /// full sale admits nobody.
    pub(super) fn take(&self, product: ProductId, version: GateVersion, buyers: i64) -> Option<Users> {
        let admitted = {
            let mut all = self.0.lock();
            let admitted = all.sales.remove(&product)?;
            all.users -= admitted.users.len();
            admitted
        };
        let users: Users = admitted.users.into_iter().collect();
        (admitted.version == version && users.len() as i64 == buyers).then_some(users)
    }

    /// Forgets sales that have admitted nobody for long.
    pub(super) fn forget_idle(&self, now: Instant) {
        let mut all = self.0.lock();
        all.sales.retain(|_, admitted| now.duration_since(admitted.last) <= FORGET_AFTER);
        all.users = all.sales.values().map(|admitted| admitted.users.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_all_buyers_only_if_as_many_are_held_at_the_same_version() {
        let (product, user) = (1_i64.try_into().unwrap(), |id: i64| UserId::try_from(id).unwrap());
        let noted = || {
            let admitted = AdmittedHere::default();
            admitted.note(product, GateVersion::of(1, 4), [user(9)].into_iter());
            admitted.note(product, GateVersion::of(1, 5), [user(1), user(2)].into_iter());
            admitted.note(product, GateVersion::of(1, 5), [user(2), user(3)].into_iter());
            admitted
        };
        let three: Users = [1_i64, 2, 3].map(user).into_iter().collect();
        assert_eq!(noted().take(product, GateVersion::of(1, 5), 3), Some(three), "a repeated step counts once");
        assert_eq!(noted().take(product, GateVersion::of(1, 5), 4), None, "another instance has admitted one");
        assert_eq!(noted().take(product, GateVersion::of(2, 5), 3), None, "rebuilt meanwhile");
        let admitted = noted();
        admitted.forget_idle(Instant::now() + 2 * FORGET_AFTER);
        assert_eq!(admitted.take(product, GateVersion::of(1, 5), 3), None, "forgotten");
    }
}
