//! One deployment: the instances of one database use one Redis and one queue.
//!
//! Two gates for one database would sell apart from each other: what the one promises is turned down when the other was
//! rebuilt. So the database keeps which Redis and which queue belong to it, both of them hold random ids that say so, and an
//! instance that reaches others does not start. While it runs, each instance compares twice a second, and says what it uses.
//!
//! Invariant: a promise is given only while this instance has lately asked the database and not been told that its Redis or
//! its queue was left. When the database does not answer, the sale goes on: nobody can leave a Redis without it.

mod commands;
mod comparison;
mod instance;
mod judgment;
mod newest_epochs;

pub use self::instance::Membership;
pub(super) use self::instance::{LEFT_AFTER, PROMISE_MAX_AGE};
