//! Instructions that the pieces every purchase passes through take, counted by Callgrind: `make bench-instructions`.
//!
//! Each piece runs once before it is counted, so that what happens only the first time is not. Its input is made
//! before and its result dropped after. Ids are the same in every run; only the gate's hash keys are left to chance.

#![expect(missing_docs, reason = "of what the macros make")]

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::hint::black_box;
use std::time::Duration;

use actix_web::{HttpResponse, ResponseError};
use futures_util::FutureExt;
use gungraun::{Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use seckill::error::Error;
use seckill::model::{
    Click, Denial, Network, ProductId, Purchase, PurchaseGroup, Quantity, Revision, Role, SaleSettings, Terms,
    Timestamp,
};
use seckill::queue::{self, MessagePart};
use seckill::services::{Identity, OwnToken, Tokens};
use seckill::stock::{Admission, LoadedBuyers, StockGate};
use uuid::Uuid;

/// Purchases in a step of the gate and in a message.
const TOGETHER: usize = 64;
/// Sales of the gate, a step for each: so many that it evens out how this run's random hash keys spread the buyers.
const SALES: i64 = 32;
/// Buyers whom each sale has seen before: with so many, the tables of the gate are half full, and far from growing
/// during the steps. (The shards of the rate limiter hold about 1,056 each; they grow after 896 and 1,792.)
const EARLIER: usize = 528;

/// Keeps what a piece works on, so that dropping it is not counted.
fn kept<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// Purchases by users whose ids are scattered, as those of a crowd are.
fn purchases(product: i64, count: usize) -> (ProductId, Vec<Purchase>) {
    let purchase = |n: u64| {
        let order = Uuid::from_u128(0x019a_0000_0000_7000_8000_0000_0000_0000 | u128::from(n));
        let user = BuildHasherDefault::<DefaultHasher>::default().hash_one(n) >> 24;
        let user_id = (user as i64).try_into().expect("positive");
        Purchase { order_id: order.try_into().expect("a UUIDv7"), user_id, quantity: Quantity::ONE }
    };
    let first = product as u64 * 1_000_000;
    (product.try_into().expect("positive"), (first..first + count as u64).map(purchase).collect())
}

type TokenInput = &'static (Tokens, String);

fn token() -> TokenInput {
    let tokens = Tokens::new(&"0123456789abcdef0123456789abcdef".into(), Duration::from_secs(3600));
    let identity = Identity { user_id: 1_000_001.try_into().expect("positive"), role: Role::Buyer };
    let token = tokens.issue(identity).expect("signs");
    assert_eq!(tokens.check(&token).expect("is ours").identity, identity);
    kept((tokens, token))
}

#[library_benchmark]
#[bench::good(token())]
fn check_token((tokens, token): TokenInput) -> Result<OwnToken, Error> {
    tokens.check(black_box(token))
}

type GateInput = &'static (StockGate, Vec<(ProductId, Vec<Click>)>);

/// A gate that the earlier buyers of each sale have passed or found sold out, and all its buyers.
fn gate(stock: i64) -> GateInput {
    let from = Some(Network::of([192, 0, 2, 1].into()));
    let clicks = |(product, purchases): (ProductId, Vec<Purchase>)| {
        (product, purchases.into_iter().map(|purchase| Click { purchase, from }).collect::<Vec<_>>())
    };
    let sales: Vec<_> = (1..=SALES).map(|product| clicks(purchases(product, EARLIER + TOGETHER))).collect();
    let gate = StockGate::memory();
    let starts_at = Timestamp::from_unix_ms(0).expect("in range");
    let (payment_window, max_per_order, max_per_address) = (None, Quantity::ONE, None);
    let terms = Terms { price_cents: 1_990, payment_window, max_per_order, max_per_address };
    let settings = SaleSettings { revision: 1, stock, starts_at, ends_at: None, paused: false, terms: Some(terms) };
    // The last thing before the count: the rate limiter forgets a try after a second.
    for (product, buyers) in &sales {
        gate.open_with(*product, 1, &settings, LoadedBuyers::expecting(0, &settings)).expect("is the first");
        step(&gate, *product, &buyers[..EARLIER]);
    }
    kept((gate, sales))
}

fn step(gate: &StockGate, product: ProductId, clicks: &[Click]) -> Admission {
    gate.reserve(product, clicks).now_or_never().expect("a gate in this process never waits").expect("is open")
}

#[library_benchmark]
#[bench::taken(gate(1_000_000))]
#[bench::sold_out(gate(TOGETHER as i64))]
fn gate_steps((gate, sales): GateInput) -> Vec<Admission> {
    sales.iter().map(|(product, buyers)| step(gate, *product, black_box(&buyers[EARLIER..]))).collect()
}

// What clicks on a sold-out sale cost the gate, as many as in those steps.
#[library_benchmark]
#[bench::sold_out(gate(TOGETHER as i64))]
fn refuse((gate, sales): GateInput) -> usize {
    let refused = |product, buyers: &[Click]| {
        buyers.iter().filter(|click| black_box(gate.denial(product, click.purchase.user_id)).is_some()).count()
    };
    sales.iter().map(|(product, buyers)| refused(*product, black_box(&buyers[EARLIER..]))).sum()
}

fn group() -> &'static PurchaseGroup {
    let (product_id, items) = purchases(7, TOGETHER);
    let group =
        kept(PurchaseGroup { product_id, epoch: 1, revision: Some(Revision::FIRST), items, traced: Vec::new() });
    assert_eq!(queue::decode(&queue::encode(group)), Ok(MessagePart::Purchases(group.clone())));
    group
}

fn message() -> &'static Vec<u8> {
    kept(queue::encode(group()))
}

#[library_benchmark]
#[bench::group(group())]
fn encode_message(group: &PurchaseGroup) -> Vec<u8> {
    queue::encode(black_box(group))
}

#[library_benchmark]
#[bench::group(message())]
fn decode_message(message: &[u8]) -> Result<MessagePart, String> {
    queue::decode(black_box(message))
}

fn sold_out() -> &'static Error {
    // Dropped here: its parts are used again, as in a server that has answered before.
    let sold_out = &Error::Denied(Denial::SoldOut);
    drop(sold_out.error_response());
    sold_out
}

#[library_benchmark]
#[bench::sold_out(sold_out())]
fn render_refusal(error: &Error) -> HttpResponse {
    black_box(error).error_response()
}

library_benchmark_group!(
    name = pieces,
    benchmarks = [check_token, gate_steps, refuse, encode_message, decode_message, render_refusal]
);
main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = pieces
);
