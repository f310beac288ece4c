//! Faults, from outside: the real program sells to a crowd while processes are killed, servers vanish and links break.
//! Afterwards every promise is looked up and every unit counted. What takes minutes is ignored unless asked for.
//!
//! `(peers N)` is line N of docs/peers.md: how another flash-sale system fails in that place.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod books;
mod certificates;
mod client;
#[cfg(feature = "failpoints")]
mod clocks;
#[cfg(feature = "failpoints")]
mod crash_points;
#[cfg(feature = "failpoints")]
mod creation;
mod crowd;
mod daemon;
mod dice;
mod distributed;
mod double_faults;
mod embedded;
#[cfg(feature = "failpoints")]
mod expiry;
mod hostile_rabbitmq;
mod hostile_sockets;
#[cfg(feature = "failpoints")]
mod late_payments;
mod life;
mod link;
mod links;
mod mariadb;
mod observed;
mod outages;
mod overload;
mod payments;
mod process;
mod proxy;
mod quiet_log;
mod rabbitmq;
#[path = "../support/receiver.rs"]
#[expect(dead_code, reason = "these tests need a receiver that takes everything")]
mod receiver;
mod redis;
mod redis_nodes;
mod redis_shards;
mod refusing_database;
mod refusing_file;
mod refusing_redis;
mod server;
mod several_addresses;
#[path = "../support/signing.rs"]
mod signing;
mod start;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "these tests read the stores by themselves")]
mod support;
mod tls;
mod trial;
mod upgrade;
mod verdict;
mod webhooks;
