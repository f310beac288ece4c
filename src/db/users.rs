//! Queries on `users`.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;

use super::conn::{DbConn, on_db};
use super::error::DbResult;
use super::readable::{Row, one, one_by_one};
use super::schema::users;
use crate::model::{Account, Role, Timestamp, UserId, Username};

/// Its name where a row of it cannot be read.
const USERS: &str = "users";

/// The columns of [`Account`].
const ACCOUNT: (users::id, users::username, users::password_hash, users::role, users::token_generation) =
    (users::id, users::username, users::password_hash, users::role, users::token_generation);

one_by_one!(i64, Account, (BigInt, Text, Text, Text, BigInt));

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
        let query = users::table.select(ACCOUNT).filter(users::username_key.eq(name.key()));
        let found: Option<Row<i64, Account>> = on_db!(conn, query.get_result(conn).await.optional())?;
        one(USERS, found)
    }

    /// The account of an id.
    pub async fn find_user(&mut self, id: UserId) -> DbResult<Option<Account>> {
        let conn = self;
        let query = users::table.select(ACCOUNT).filter(users::id.eq(id));
        let found: Option<Row<i64, Account>> = on_db!(conn, query.get_result(conn).await.optional())?;
        one(USERS, found)
    }

    /// Gives an account another password if it still has the old one; says whether it did.
    pub async fn replace_password(&mut self, id: UserId, old_hash: &str, new_hash: &str) -> DbResult<bool> {
        let conn = self;
        let account = users::table.filter(users::id.eq(id)).filter(users::password_hash.eq(old_hash));
        let change = users::password_hash.eq(new_hash);
        Ok(on_db!(conn, diesel::update(account).set(change).execute(conn).await)? > 0)
    }

    /// Begins the generation after this one, if it is the account's; says whether it did.
    pub async fn begin_token_generation(&mut self, id: UserId, after: i64) -> DbResult<bool> {
        let conn = self;
        let account = users::table.filter(users::id.eq(id)).filter(users::token_generation.eq(after));
        let change = users::token_generation.eq(after + 1);
        Ok(on_db!(conn, diesel::update(account).set(change).execute(conn).await)? > 0)
    }

    /// Begins the next generation of an account, whichever that is; says which.
    pub async fn next_token_generation(&mut self, id: UserId) -> DbResult<i64> {
        let conn = self;
        let account = users::table.filter(users::id.eq(id));
        let change = users::token_generation.eq(users::token_generation + 1);
        on_db!(conn, diesel::update(account).set(change).execute(conn).await)?;
        let generation = users::table.select(users::token_generation).filter(users::id.eq(id));
        on_db!(conn, generation.get_result(conn).await)
    }
}
