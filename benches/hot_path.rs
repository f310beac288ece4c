//! Instructions that the pieces every purchase passes through take, counted by Callgrind: `make bench-instructions`.
//!
//! Each piece runs once before it is counted, so that what happens only the first time is not. Its input is made
//! before and its result dropped after. Ids are the same in every run; only the gate's hash keys are left to chance.

#![expect(missing_docs, reason = "of what the macros make")]

use std::hint::black_box;
use std::time::Duration;

use actix_web::{HttpResponse, ResponseError};
use futures_util::FutureExt;
use gungraun::{Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use seckill::error::Error;
use seckill::model::{OrderId, ProductId, Purchase, PurchaseBatch, Role, SaleTerms, Timestamp};
use seckill::queue::{self, Message};
use seckill::services::{Identity, Tokens};
use seckill::stock::{Admission, Refusal, StockGate};

/// Purchases in a step of the gate and in a message.
const BATCH: i64 = 64;
/// Buyers who were at the gate before. With so many, its tables have just grown: they will not again during the step,
/// and as they are half empty, it matters little how this run's random hash keys spread the buyers.
const EARLIER: i64 = 15 * BATCH;

/// Keeps what a piece works on, so that dropping it is not counted.
fn kept<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn product() -> ProductId {
    7.try_into().expect("positive")
}

fn purchases(first_user: i64, count: i64) -> Vec<Purchase> {
    let order = |user: i64| format!("019a0000-0000-7000-8000-{user:012x}").parse::<OrderId>().expect("a UUIDv7");
    let purchase = |user: i64| Purchase { order_id: order(user), user_id: user.try_into().expect("positive") };
    (first_user..first_user + count).map(purchase).collect()
}

type TokenInput = &'static (Tokens, String);

fn token() -> TokenInput {
    let tokens = Tokens::new(&"0123456789abcdef0123456789abcdef".into(), Duration::from_secs(3600));
    let identity = Identity { user_id: 1_000_001.try_into().expect("positive"), role: Role::Buyer };
    let token = tokens.issue(identity).expect("signs");
    assert_eq!(tokens.check(&token).expect("is ours"), identity);
    kept((tokens, token))
}

#[library_benchmark]
#[bench::good(token())]
fn check_token((tokens, token): TokenInput) -> Result<Identity, Error> {
    tokens.check(black_box(token))
}

type GateInput = &'static (StockGate, Vec<Purchase>);

/// A gate that earlier buyers have passed or found sold out, and the next batch.
fn gate(stock: i64) -> GateInput {
    let next = purchases(1 + EARLIER, BATCH);
    let gate = StockGate::memory();
    let starts_at = Timestamp::from_unix_ms(0).expect("in range");
    let terms = SaleTerms { ver: 1, stock, starts_at, ends_at: None, paused: false };
    gate.open_with(product(), 1, &terms, Vec::new()).expect("is the first");
    // The last thing before the count: the gate forgets a try after a second.
    step(&gate, &purchases(1, EARLIER));
    kept((gate, next))
}

fn step(gate: &StockGate, purchases: &[Purchase]) -> Admission {
    gate.reserve(product(), purchases).now_or_never().expect("a gate in this process never waits").expect("is open")
}

#[library_benchmark]
#[bench::taken(gate(1_000_000))]
#[bench::sold_out(gate(BATCH))]
fn gate_step((gate, purchases): GateInput) -> Admission {
    step(gate, black_box(purchases))
}

// What a click on a sold-out sale costs the gate.
#[library_benchmark]
#[bench::sold_out(gate(BATCH))]
fn refuse((gate, purchases): GateInput) -> Option<Refusal> {
    gate.refusal(product(), black_box(purchases)[0].user_id)
}

fn batch() -> &'static PurchaseBatch {
    let batch = kept(PurchaseBatch { product_id: product(), epoch: 1, items: purchases(1_000_001, BATCH) });
    assert_eq!(queue::decode(&queue::encode(batch)), Ok(Message::Purchases(batch.clone())));
    batch
}

fn message() -> &'static Vec<u8> {
    kept(queue::encode(batch()))
}

#[library_benchmark]
#[bench::batch(batch())]
fn encode_message(batch: &PurchaseBatch) -> Vec<u8> {
    queue::encode(black_box(batch))
}

#[library_benchmark]
#[bench::batch(message())]
fn decode_message(message: &[u8]) -> Result<Message, String> {
    queue::decode(black_box(message))
}

fn sold_out() -> &'static Error {
    // Dropped here: its parts are used again, as in a server that has answered before.
    drop(Error::SoldOut.error_response());
    &Error::SoldOut
}

#[library_benchmark]
#[bench::sold_out(sold_out())]
fn render_refusal(error: &Error) -> HttpResponse {
    black_box(error).error_response()
}

library_benchmark_group!(
    name = pieces,
    benchmarks = [check_token, gate_step, refuse, encode_message, decode_message, render_refusal]
);
main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = pieces
);
