//! The API from outside, over HTTP, on real stores. Each test has an application, a database, a gate and a queue of
//! its own, so they run side by side. `(peers N)` is line N of docs/peers.md.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod access;
mod accounts;
mod address_limits;
mod app;
mod archive;
mod backups;
mod broker;
mod callbacks;
mod catalog;
mod cleaning;
mod client;
mod collector;
mod command;
mod config_errors;
mod dead_letters;
mod dead_letters_over_http;
mod deployment;
mod described;
mod distributed_only;
mod documents;
mod drafts;
mod ended_sales;
mod expiry;
mod exports;
mod external_users;
mod fake_stripe;
mod http;
mod if_match;
mod late_payments;
mod late_payments_races;
mod late_payments_recovery;
mod listening;
mod live_events;
mod log_ins;
mod monitor;
mod operations;
mod order_changes;
mod order_lists;
mod order_lookup;
mod orders;
mod own_orders;
mod pages;
mod payments;
mod protocol;
mod provider;
mod purchases;
mod quantities;
mod reads;
#[path = "../support/receiver.rs"]
mod receiver;
mod recovery;
mod revisions;
#[path = "../support/signing.rs"]
mod signing;
mod sockets;
mod starting;
mod stripe;
mod summaries;
#[path = "../support/mod.rs"]
mod support;
mod traces;
mod troubleshooting;
mod unreadable_rows;
mod upgrades;
mod webhook_events;
mod webhook_tries;
mod webhooks;

use app::TestApp;
use seckill::config::Backend;

/// What a test of the API is about.
type Subject = TestApp;

async fn run(backend: Backend, test: impl AsyncFnOnce(&mut TestApp)) {
    TestApp::run(backend, test).await;
}
