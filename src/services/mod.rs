//! The rules of the sale. Knows no HTTP, no SQL, no Redis and no AMQP: only `db`, `stock` and `queue`.

mod accounts;
mod audits;
mod auth_limiter;
mod catalog;
mod health;
mod idempotency;
mod orders;
mod passwords;
mod purchases;
mod rebuilds;
mod recorder;
mod reopening;
mod shown;
mod sweeper;
mod tokens;

pub use accounts::{Accounts, Credentials, LoggedIn, Profile};
pub use audits::{Audit, Audits};
pub use catalog::{Catalog, CreateProduct, PatchProduct, ProductView, Restock, SaleFilter};
pub use health::{Check, Checks, Health};
pub use idempotency::IdempotencyKey;
pub use orders::Orders;
pub use passwords::PasswordHasher;
pub use purchases::{Lane, Purchases};
pub use rebuilds::Rebuilds;
pub use recorder::{Decision, Recorder};
pub use reopening::Reopening;
pub use shown::Rendered;
pub use sweeper::Sweeper;
pub use tokens::{Identity, Tokens};

use std::time::Duration;

use serde::Serialize;

use crate::model::Timestamp;

/// A sale that ended longer ago than this has no purchase on its way any more.
const STILL_ON_THE_WAY: Duration = Duration::from_secs(3600);

/// Sales that had ended by then have nothing on its way.
fn nothing_on_the_way_before() -> Timestamp {
    let ms = Timestamp::now().unix_ms() - STILL_ON_THE_WAY.as_millis() as i64;
    Timestamp::from_unix_ms(ms).unwrap_or_else(Timestamp::now)
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page of at most `limit` from a list that was asked for one entry more.
    fn cut(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = if more { items.last().map(cursor) } else { None };
        Self { items, next_cursor }
    }
}
