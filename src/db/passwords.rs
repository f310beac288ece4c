//! Gives an account another password.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::conn::{DbConn, on_db};
use super::error::DbResult;
use super::schema::users;
use crate::model::UserId;

impl DbConn {
    /// Replaces the hash of an account's password, whatever it was, and withdraws the tokens that there are: on every
    /// instance, once its transaction is committed.
    pub async fn set_password(&mut self, id: UserId, hash: &str) -> DbResult<()> {
        {
            let conn = &mut *self;
            let account = users::table.filter(users::id.eq(id));
            on_db!(conn, diesel::update(account).set(users::password_hash.eq(hash)).execute(conn).await)?;
        }
        let generation = self.next_token_generation(id).await?;
        self.insert_token_withdrawal(id, generation).await
    }
}
