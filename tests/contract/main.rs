//! The contracts of `db`, `stock` and `queue`: one set of assertions, run unchanged on both variants of each.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod database;
mod gate;
mod gate_properties;
mod late_payments;
mod queue;
#[path = "../support/mod.rs"]
#[macro_use]
mod support;

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures_util::FutureExt;
use seckill::config::Backend;
use seckill::model::{OrderId, ProductId, Purchase, Quantity, UserId};
use support::Stores;

/// What a contract is tested on.
type Subject = Stores;

async fn run(backend: Backend, contract: impl AsyncFnOnce(&mut Stores)) {
    let mut stores = Stores::new(backend).await;
    let outcome = AssertUnwindSafe(contract(&mut stores)).catch_unwind().await;
    stores.remove().await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

fn product(id: i64) -> ProductId {
    id.try_into().unwrap()
}

fn user(id: i64) -> UserId {
    id.try_into().unwrap()
}

/// A new purchase of that user.
fn purchase(id: i64) -> Purchase {
    Purchase { order_id: OrderId::draw(product(7)), user_id: user(id), quantity: Quantity::ONE }
}
