//! Ids as types of their own, so that a product's is never taken for a user's.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::{BigInt, Binary};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Timestamp;

/// Browsers read larger numbers wrongly, as another id.
const ID_MAX: i64 = (1 << 53) - 1;
const ID_PROBLEM: &str = "must be a whole number from 1 to 9007199254740991";

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident, $stored_most:expr) => {
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
                if (1..=ID_MAX).contains(&id) { Ok(Self(id)) } else { Err(ID_PROBLEM) }
            }
        }

        impl From<$name> for i64 {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = &'static str;

            /// Digits only: no sign, no space, no leading zero. An id has one spelling, so a page has one address.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if text.is_empty() || text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(ID_PROBLEM);
                }
                text.parse::<i64>().map_err(|_| ID_PROBLEM)?.try_into()
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

        impl $name {
            /// What a row holds.
            pub fn from_stored(id: i64) -> Result<Self, String> {
                if (1..=$stored_most).contains(&id) {
                    Ok(Self(id))
                } else {
                    Err(format!(concat!("{} is no ", stringify!($name)), id))
                }
            }
        }

        impl<DB: Backend> FromSql<BigInt, DB> for $name
        where
            i64: FromSql<BigInt, DB>,
        {
            fn from_sql(raw: DB::RawValue<'_>) -> deserialize::Result<Self> {
                Ok(Self::from_stored(i64::from_sql(raw)?)?)
            }
        }
    };
}

integer_id!(
    /// Id of a product.
    ProductId,
    ID_MAX
);
integer_id!(
    /// Id of a user: a row of ours, or of the shop's own directory. Orders of version 0.1 can hold greater ones.
    UserId,
    i64::MAX
);
integer_id!(
    /// Id of an endpoint of webhooks.
    EndpointId,
    ID_MAX
);
integer_id!(
    /// Id of an entry of the administrators' log.
    AdminActionId,
    ID_MAX
);
integer_id!(
    /// Id of a webhook that is sent to an endpoint.
    DeliveryId,
    ID_MAX
);

impl ProductId {
    /// The greatest there can be.
    pub const GREATEST: i64 = ID_MAX;
}

impl UserId {
    /// Ids that we give are at most this, 2^53 - 1: JavaScript reads larger numbers wrongly.
    pub const GREATEST_KNOWN: i64 = (1 << 53) - 1;
}

/// Id of an order: a UUIDv7, so ids sort by time and need no coordination.
///
/// Of its bits that are free, 20 are the end of the product's id, so that an order which is not in the database yet is
/// looked for at one gate, however many sales there are. The others: 12 that count within a millisecond, from a random
/// start, and 42 random ones. Two instances that draw 50 ids each in a millisecond for one product (100,000 a second) meet
/// with 1 in 3 * 10^12: once in some hundred years of such a rush.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, AsExpression, FromSqlRow,
)]
#[diesel(sql_type = Binary)]
#[serde(try_from = "Uuid", into = "Uuid")]
pub struct OrderId(Uuid);

/// Distinct order ids. Hashed quickly, with a seed of its own in each set.
pub type OrderIds = HashSet<OrderId, foldhash::fast::RandomState>;

impl OrderId {
    /// Draws a new id for an order of this product; later ones of this process are greater, also when the clock goes back.
    pub fn draw(product: ProductId) -> Self {
        let random = Uuid::new_v4().as_u128();
        // The upper half of the count stays free, or a busy millisecond would end in the next one.
        let start = (random >> 64) as u64 & (COUNTED >> 1);
        let wanted = (Timestamp::now().unix_ms() as u64) << COUNT_BITS | start;
        let next = |last: u64| wanted.max(last + 1);
        let (Ok(last) | Err(last)) =
            LAST_DRAWN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        let drawn = u128::from(next(last));
        let product = product.get() as u128 & ((1 << PRODUCT_BITS) - 1);
        let (time, count) = (drawn >> COUNT_BITS, drawn & u128::from(COUNTED));
        let tail = product << RANDOM_BITS | random & ((1 << RANDOM_BITS) - 1);
        Self(Uuid::from_u128(time << 80 | 7 << 76 | count << 64 | 0b10 << 62 | tail))
    }

    /// The product that it names, if there are not more than a million of them, and if this is how it was drawn: ids of an
    /// earlier version name anything.
    pub fn likely_product(self) -> Option<ProductId> {
        let product = self.0.as_u128() >> RANDOM_BITS & ((1 << PRODUCT_BITS) - 1);
        ProductId::try_from(product as i64).ok()
    }

    /// What a row holds.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, String> {
        Uuid::from_slice(bytes).map(Self).map_err(|_| format!("{} bytes are no order id", bytes.len()))
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

/// Parts of an id, from its end.
const RANDOM_BITS: u32 = 42;
const PRODUCT_BITS: u32 = 20;
const COUNT_BITS: u32 = 12;
const COUNTED: u64 = (1 << COUNT_BITS) - 1;

/// Time and count of the newest id of this process.
static LAST_DRAWN: AtomicU64 = AtomicU64::new(0);

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
        if text.len() != Self::LENGTH || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err("must be a UUID in small letters");
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
        Ok(Self::from_stored(&bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_plain_positive_digits() {
        assert_eq!("7".parse::<ProductId>().unwrap().get(), 7);
        assert_eq!("9007199254740991".parse::<ProductId>().unwrap().get(), 9_007_199_254_740_991);
        for bad in ["", "0", "-1", "+1", " 1", "1.0", "abc", "007", "9007199254740992", "9223372036854775808"] {
            assert!(bad.parse::<ProductId>().is_err(), "{bad:?}");
        }
    }

    fn product(id: i64) -> ProductId {
        ProductId::try_from(id).unwrap()
    }

    #[test]
    fn an_order_id_has_one_spelling_and_sorts_by_time() {
        let (first, second) = (OrderId::draw(product(9)), OrderId::draw(product(1)));
        assert!(first < second);
        assert_eq!(first.to_string().parse::<OrderId>(), Ok(first));
        assert!(first.to_string().replace('-', "").parse::<OrderId>().is_err());
        let loud = "01A222DE-76B9-7552-ACAB-B84D04B4E19A";
        assert!(loud.parse::<OrderId>().is_err() && loud.to_lowercase().parse::<OrderId>().is_ok());
        let uuid = Uuid::from(first);
        assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
    }

    #[test]
    fn an_order_id_names_its_product() {
        for id in [1, 7, (1 << 20) - 1] {
            assert_eq!(OrderId::draw(product(id)).likely_product(), Some(product(id)));
        }
        assert_eq!(OrderId::draw(product((1 << 20) + 3)).likely_product(), Some(product(3)), "only the end of it fits");
        assert_eq!(OrderId::draw(product(1 << 20)).likely_product(), None);
    }

    #[test]
    fn ids_of_all_threads_differ_and_each_threads_own_are_in_order() {
        let draw = || (0..20_000).map(|_| OrderId::draw(product(1))).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let drawn: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(drawn.iter().all(|ids| ids.is_sorted()));
        let last = drawn.iter().flatten().max().unwrap();
        assert!(
            last.drawn_at().unix_ms() <= Timestamp::now().unix_ms() + 50,
            "the count hardly runs ahead of the time"
        );
        assert_eq!(drawn.into_iter().flatten().collect::<HashSet<_>>().len(), 80_000);
    }
}
