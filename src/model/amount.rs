//! Amounts of money as rows hold them.

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::sql_types::BigInt;

/// An amount that is read from a row. A negative one was written by nobody here, and must not be shown as a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromSqlRow)]
pub struct AtLeastZero(i64);

impl From<AtLeastZero> for i64 {
    fn from(AtLeastZero(amount): AtLeastZero) -> Self {
        amount
    }
}

impl<DB: Backend> FromSql<BigInt, DB> for AtLeastZero
where
    i64: FromSql<BigInt, DB>,
{
    fn from_sql(raw: DB::RawValue<'_>) -> deserialize::Result<Self> {
        match i64::from_sql(raw)? {
            amount @ 0.. => Ok(Self(amount)),
            negative => Err(format!("the amount {negative} is negative").into()),
        }
    }
}
