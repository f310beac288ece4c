//! Queries on `users`.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::users;
use super::{DbConn, DbResult, on_db};
use crate::model::{Account, Role, Timestamp, UserId, Username};

impl DbConn {
    /// Inserts an account.
    ///
    /// `DbError::Duplicate` when the name is taken.
    pub async fn insert_user(&mut self, name: &Username, password_hash: &str, role: Role) -> DbResult<UserId> {
        let conn = self;
        let row = (
            users::username.eq(name.as_str()),
            users::username_key.eq(name.key()),
            users::password_hash.eq(password_hash),
            users::role.eq(role),
            users::created_at.eq(Timestamp::now()),
        );
        on_db!(conn, diesel::insert_into(users::table).values(row).execute(conn).await)?;
        let key = name.key();
        on_db!(conn, users::table.select(users::id).filter(users::username_key.eq(key)).get_result(conn).await)
    }

    /// The account of a name, whatever its case.
    pub async fn find_user_by_name(&mut self, name: &Username) -> DbResult<Option<Account>> {
        let conn = self;
        let query = users::table
            .select((users::id, users::username, users::password_hash, users::role))
            .filter(users::username_key.eq(name.key()));
        on_db!(conn, query.get_result(conn).await.optional())
    }

    /// The account of an id.
    pub async fn find_user(&mut self, id: UserId) -> DbResult<Option<Account>> {
        let conn = self;
        let query = users::table
            .select((users::id, users::username, users::password_hash, users::role))
            .filter(users::id.eq(id));
        on_db!(conn, query.get_result(conn).await.optional())
    }
}
