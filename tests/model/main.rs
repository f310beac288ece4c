//! The purchase protocol of one product as a model, of which every state that can be reached is visited.
//!
//! Steps: reserve, publish, arrive or vanish, confirm, reply, give up; deliver, prefetch, decide, ack, mark written, release,
//! clear; crash, or lose the connection while the old consumer works on; sweep; cancel, restock; the gate lost, flushed
//! or failed over to any earlier state, or left for another server while its instances go on; a purchase set aside and
//! replayed; the rebuild, each step a chance to die. A request may die at each step. Then the life of an order: deadline,
//! payment, repeated callback, late payment, cancel by buyer or merchant, refund; several units, and a lowered stock.
//!
//! Abstractions: the wait of a rebuild is one step that marks older requests as past their age; scripts and
//! transactions are atomic; queue and database keep what they took; a message or write batch is its orders one by
//! one, which allows a crash between any two; that an instance has read lately whether its gate was left is one step,
//! too, before the wait of a rebuild is over. Not in the model: clocks, loss of queue or database data, rate limits,
//! prices, payments that fail.
//!
//! The rules in words, and which of them each mutant is for: docs/protocol.md.
//!
//! The larger systems take minutes: `cargo test --release --test model -- --include-ignored`.

mod buckets;
mod defects;
mod invariants;
mod mutants;
mod search;
mod sound;
mod state;
mod system;
