//! Accounts: who may log in, and what names and passwords may look like.

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use diesel::prelude::Queryable;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{UserId, text_column};

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, AsExpression, FromSqlRow, ToSchema)]
#[diesel(sql_type = diesel::sql_types::Text)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Buys.
    Buyer,
    /// Runs the sale.
    Admin,
}

text_column!(Role { Role::Buyer => "buyer", Role::Admin => "admin" });

/// An account as it is stored.
#[derive(Debug, Clone, Queryable)]
pub struct Account {
    /// Its id.
    pub id: UserId,
    /// The name as it was registered.
    pub username: String,
    /// bcrypt hash.
    pub password_hash: String,
    /// What it may do.
    pub role: Role,
    /// Which generation of its tokens is in force; a log-out begins the next.
    pub token_generation: i64,
}

impl Account {
    /// Stands for a hash until the administrator's password has been hashed: no password fits.
    pub const NO_PASSWORD: &str = "!";

    /// Whether anybody can log in to it.
    pub fn has_password(&self) -> bool {
        self.password_hash != Self::NO_PASSWORD
    }
}

/// A well-formed user name: 3 to 32 of letters, digits, `_`, `-`, `.` (ASCII).
#[derive(Debug, Clone)]
pub struct Username(String);

impl Username {
    /// Checks the form.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if !(3..=32).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err("must be 3 to 32 of letters, digits, `_`, `-`, `.`");
        }
        Ok(Self(name.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What makes it unique: names differ by more than their case.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// A well-formed password: 8 to 72 bytes, for bcrypt reads no more, and no NUL, at which it would begin anew.
#[derive(Debug, Clone)]
pub struct Password(SecretString);

impl Password {
    /// Checks the form.
    pub fn parse(password: &str) -> Result<Self, &'static str> {
        if password.contains('\0') {
            return Err("must not contain a NUL character");
        }
        if !(8..=72).contains(&password.len()) {
            return Err("must be 8 to 72 bytes");
        }
        Ok(Self(password.into()))
    }

    /// The bytes to hash.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}
