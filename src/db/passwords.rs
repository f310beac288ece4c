//! Gives an account another password.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::users;
use super::{DbConn, DbResult, on_db};
use crate::model::UserId;

impl DbConn {
    /// Replaces the hash of an account's password, whatever it was.
    pub async fn set_password(&mut self, id: UserId, hash: &str) -> DbResult<()> {
        let conn = self;
        let account = users::table.filter(users::id.eq(id));
        on_db!(conn, diesel::update(account).set(users::password_hash.eq(hash)).execute(conn).await)?;
        Ok(())
    }
}
