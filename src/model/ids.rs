//! Ids as types of their own, so that a product's is never taken for a user's.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::{BigInt, Binary};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Timestamp;

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, AsExpression, FromSqlRow)]
        #[diesel(sql_type = BigInt)]
        #[serde(try_from = "i64", into = "i64")]
        pub struct $name(i64);

        impl $name {
            /// The number.
            pub fn get(self) -> i64 {
                self.0
            }
        }

        impl TryFrom<i64> for $name {
            type Error = &'static str;

            fn try_from(id: i64) -> Result<Self, Self::Error> {
                if id > 0 { Ok(Self(id)) } else { Err("must be a positive integer") }
            }
        }

        impl From<$name> for i64 {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = &'static str;

            /// Digits only: no sign, no space.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                const PROBLEM: &str = "must be a positive integer";
                if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(PROBLEM);
                }
                text.parse::<i64>().map_err(|_| PROBLEM)?.try_into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl<DB: Backend> ToSql<BigInt, DB> for $name
        where
            i64: ToSql<BigInt, DB>,
        {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
                self.0.to_sql(out)
            }
        }

        impl<DB: Backend> FromSql<BigInt, DB> for $name
        where
            i64: FromSql<BigInt, DB>,
        {
            fn from_sql(raw: DB::RawValue<'_>) -> deserialize::Result<Self> {
                Ok(Self(i64::from_sql(raw)?))
            }
        }
    };
}

integer_id!(
    /// Id of a product.
    ProductId
);
integer_id!(
    /// Id of a user: a row of ours, or of the shop's own directory.
    UserId
);

/// Id of an order: a UUIDv7, so ids sort by time and need no coordination.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, AsExpression, FromSqlRow,
)]
#[diesel(sql_type = Binary)]
#[serde(try_from = "Uuid", into = "Uuid")]
pub struct OrderId(Uuid);

/// Distinct order ids. Hashed quickly, with a seed of its own in each set.
pub type OrderIds = HashSet<OrderId, foldhash::fast::RandomState>;

impl OrderId {
    /// Draws a new id; later ones of this process are greater.
    pub fn draw() -> Self {
        Self(Uuid::now_v7())
    }

    /// Bytes of its text.
    pub const LENGTH: usize = uuid::fmt::Hyphenated::LENGTH;

    /// Its text, without a formatter: an order's is written half a dozen times on its way.
    pub fn encode(self, buffer: &mut [u8; Self::LENGTH]) -> &str {
        self.0.hyphenated().encode_lower(buffer)
    }

    /// When it was drawn: a UUIDv7 begins with its time in milliseconds.
    pub fn drawn_at(self) -> Timestamp {
        Timestamp::from_unix_ms(unix_ms(self.0)).unwrap_or_else(Timestamp::now)
    }
}

fn unix_ms(uuid: Uuid) -> i64 {
    (uuid.as_u128() >> 80) as i64
}

impl TryFrom<Uuid> for OrderId {
    type Error = &'static str;

    fn try_from(uuid: Uuid) -> Result<Self, Self::Error> {
        if uuid.get_version_num() != 7 || Timestamp::from_unix_ms(unix_ms(uuid)).is_none() {
            return Err("must be a UUIDv7");
        }
        Ok(Self(uuid))
    }
}

impl From<OrderId> for Uuid {
    fn from(id: OrderId) -> Self {
        id.0
    }
}

impl FromStr for OrderId {
    type Err = &'static str;

    /// The hyphenated form only: one order has one address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != Self::LENGTH {
            return Err("must be a UUID");
        }
        Uuid::try_parse(text).map_err(|_| "must be a UUID")?.try_into()
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<DB: Backend> ToSql<Binary, DB> for OrderId
where
    [u8]: ToSql<Binary, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
        <[u8] as ToSql<Binary, DB>>::to_sql(self.0.as_bytes(), out)
    }
}

impl<DB: Backend> FromSql<Binary, DB> for OrderId
where
    Vec<u8>: FromSql<Binary, DB>,
{
    fn from_sql(raw: DB::RawValue<'_>) -> deserialize::Result<Self> {
        let bytes = <Vec<u8> as FromSql<Binary, DB>>::from_sql(raw)?;
        Ok(Self(Uuid::from_slice(&bytes)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_plain_positive_digits() {
        assert_eq!("7".parse::<ProductId>().unwrap().get(), 7);
        for bad in ["", "0", "-1", "+1", " 1", "1.0", "abc", "9223372036854775808"] {
            assert!(bad.parse::<ProductId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_order_id_has_one_spelling_and_sorts_by_time() {
        let (first, second) = (OrderId::draw(), OrderId::draw());
        assert!(first < second);
        assert_eq!(first.to_string().parse::<OrderId>(), Ok(first));
        assert!(first.to_string().replace('-', "").parse::<OrderId>().is_err());
    }
}
