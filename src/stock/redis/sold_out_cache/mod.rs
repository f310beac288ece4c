//! The sold-out cache: denials without a question to Redis. It is named after what most of them are about, a sale that is sold out.
//!
//! What denies everybody, or everybody but the buyers, is kept here as a `Snapshot` of its gate: a sale that has not begun,
//! has ended or is paused, and the buyers of one that is sold out. While a sale is full its buyers cannot change without a
//! change of its gate's version (`epoch` and `seq`), so a copy of them is exact as long as the version is the same, which the
//! [`poller`] asks a dozen times a second. When this instance has [`admitted`] them all, they need not be read. A snapshot
//! that is too old denies nobody: then Redis decides. Whoever may hold a unit is always sent there.

mod admitted;
mod cache;
pub(super) mod poller;
mod snapshot;

pub(super) use self::cache::SoldOutCache;
