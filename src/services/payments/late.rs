//! Money that comes for an order that is dead.
//!
//! A callback gets here before anything of it is written: [`settle`] set it aside. Whatever is done with it must end in one
//! transaction that remembers the callback together with what became of its payment, for it is answered 200 afterwards.

use super::callback::Callback;
use super::settling::{LateMoney, Settled, settle};
use crate::db::Db;
use crate::error::Result;
use crate::model::{Currency, ProviderName};

/// Does what these callbacks of a provider say, each of which tells of money for an order that was dead a moment ago: it must be
/// given back.
pub(super) async fn settle_late(
    db: &Db,
    provider: ProviderName,
    callbacks: Vec<Callback>,
    currency: Currency,
) -> Result<Settled> {
    db.transaction(move |conn| {
        Box::pin(async move { settle(conn, provider, &callbacks, currency, LateMoney::Owed).await })
    })
    .await
}
