//! The admission gate, "the gate" for short: who may buy, decided in one atomic step before anything slow happens.
//!
//! It admits, it does not decide: the order's row in the database is the only decision. So every operation here is
//! "add" or "remove if it is still mine", and repeating one is harmless (I6). A gate that lost what it knew, or whose
//! server changed, says so ([`GateError::Lost`]) instead of selling from an empty memory (I7).

mod gate;
mod memory;
mod rate_limiter;
mod redis;
mod shared;
mod types;

pub use self::gate::{GateServers, StockGate};
pub use self::memory::LoadedBuyers;
pub use self::rate_limiter::RATE_WINDOW;
pub use self::redis::Staging;
pub use self::redis::redis_address;
pub use self::shared::SharedGate;
pub use self::types::{
    Admission, Answer, FoundGate, GateError, GateOwner, GateView, Holding, Inspection, PaymentAdmission, Release, Stale,
};
