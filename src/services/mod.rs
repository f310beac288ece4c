//! The rules of the sale. Knows no HTTP, no SQL, no Redis and no AMQP: only `db`, `stock` and `queue`.

mod accounts;
mod audits;
mod catalog;
mod change_log;
mod creation;
mod deployment;
mod health;
mod holdings;
mod idempotency;
mod known_products;
mod on_the_way;
mod orders;
mod purchases;
mod read_limit;
mod rebuild_log;
mod rebuilds;
mod recorder;
mod reopening;
mod replay;
mod round_size;
mod shown;
mod sweeper;

pub use accounts::{
    Accounts, Authenticator, Credentials, Identification, Identity, Issued, LoggedIn, OwnToken, PasswordChange,
    PasswordHasher, Profile, Registered, Session, Tokens,
};
pub use audits::{Audit, Audits};
pub use catalog::{Catalog, CreateProduct, PatchProduct, ProductView, Restock, SaleFilter};
pub use deployment::Deployment;
pub use health::{Check, Checks, Health};
pub use holdings::Holdings;
pub use idempotency::{Answered, IdempotencyKey, KeyExpiry};
pub use known_products::KnownProducts;
pub use on_the_way::OnTheWay;
pub use orders::Orders;
pub use purchases::{Lane, Purchases};
pub use rebuilds::Rebuilds;
pub use recorder::{Decision, Recorder};
pub use reopening::Reopening;
pub use replay::Replay;
pub use shown::Rendered;
pub use sweeper::Sweeper;

use serde::Serialize;

/// One page of a list.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page of at most `limit` from a list that was asked for one entry more. `left`: where the list goes on although there
    /// are not more entries here, for some were left out.
    fn cut(mut items: Vec<T>, limit: usize, left: Option<String>, cursor: impl Fn(&T) -> String) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = if more { items.last().map(cursor) } else { left };
        Self { items, next_cursor }
    }
}
