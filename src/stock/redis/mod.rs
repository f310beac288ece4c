//! The gate in Redis: one Lua script a step, all keys of a product in one hash tag.
//!
//! From the bottom up: `connection` holds links, each bound to the identity of its server; `shard` is a master and the links to it, and
//! `shards` knows which of them has a product: the only one, found at its address or through `sentinels`, or one of a `cluster`.
//! `server` runs scripts and asks questions over them; `gate` is what purchases and orders need of it, in the files beside it
//! one concern each. Nothing here connects again in the middle of a step, for behind a new connection may be another server.

mod address;
mod clock;
mod cluster;
mod connection;
mod failure;
mod gate;
mod identity;
mod in_flight_index;
mod informants;
mod keys;
mod late;
mod mark;
mod opening;
mod reading;
mod recently_noted;
mod replies;
mod reserving;
mod scripts;
mod sentinels;
mod server;
mod shard;
mod shards;
mod sold_out_cache;
mod troubles;
mod watch;

pub use self::address::redis_address;
pub use self::gate::RedisGate;
pub use self::opening::Staging;
pub use self::watch::ServerIds;
