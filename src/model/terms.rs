//! What an order is bound to by the click: price, currency, time to pay, and how many units.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::{BigInt, Text};
use serde::{Deserialize, Serialize};

use super::{OrderId, Timestamp};

/// What the gate knows of a revision beside the sale's settings: what binds for who buys under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Price of one unit in minor units.
    pub price_cents: i64,
    /// How long an order may stay unpaid, from the click; `None`: for ever.
    pub payment_window: Option<PaymentWindow>,
    /// Units that one order may have at most.
    pub max_per_order: Quantity,
    /// Units that buyers of one network address may take in all; `None`: as many as there are.
    pub max_per_address: Option<AddressLimit>,
}

impl Terms {
    /// When an order must be paid.
    pub fn expires_at(&self, order: OrderId) -> Option<Timestamp> {
        self.payment_window.map(|window| order.drawn_at().after(window.duration()))
    }

    /// What that many units cost.
    pub fn total_cents(&self, quantity: Quantity) -> i64 {
        self.price_cents.saturating_mul(quantity.get())
    }
}

/// As the gate in Redis keeps them: `PRICE:WINDOW:MOST`, the window empty if there is none; and `:@LIMIT` if there is a limit of an
/// address. A program that knows none cannot read those, and then lets an order have one unit.
impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { price_cents, payment_window, max_per_order, max_per_address } = self;
        write!(f, "{price_cents}:")?;
        if let Some(window) = payment_window {
            write!(f, "{}", window.seconds())?;
        }
        write!(f, ":{max_per_order}")?;
        max_per_address.map_or(Ok(()), |limit| write!(f, ":@{}", limit.get()))
    }
}

impl FromStr for Terms {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let no_terms = || format!("`{text}` are no terms");
        let number = |text: &str| text.parse::<i64>().map_err(|_| no_terms());
        let parts: Vec<&str> = text.split(':').collect();
        let (price, window, most, limit) = match parts[..] {
            [price, window, most] => (price, window, most, None),
            [price, window, most, limit] => (price, window, most, Some(limit.strip_prefix('@').ok_or_else(no_terms)?)),
            _ => return Err(no_terms()),
        };
        let payment_window = match window {
            "" => None,
            seconds => Some(number(seconds)?.try_into()?),
        };
        let max_per_address = match limit {
            None => None,
            Some(units) => Some(number(units)?.try_into()?),
        };
        Ok(Self {
            price_cents: number(price)?,
            payment_window,
            max_per_order: number(most)?.try_into()?,
            max_per_address,
        })
    }
}

/// How long an order may stay unpaid: 5 seconds to 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = BigInt)]
#[serde(try_from = "i64", into = "i64")]
pub struct PaymentWindow(i64);

impl PaymentWindow {
    /// As time.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.unsigned_abs())
    }

    /// In seconds.
    pub fn seconds(self) -> i64 {
        self.0
    }
}

/// Units of one order: 1 to 10.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, AsExpression, FromSqlRow,
)]
#[diesel(sql_type = BigInt)]
#[serde(try_from = "i64", into = "i64")]
pub struct Quantity(i64);

impl Quantity {
    /// A single unit.
    pub const ONE: Self = Self(1);

    /// As a number to count with.
    pub fn get(self) -> i64 {
        self.0
    }

    /// Units beyond the first.
    pub fn extra(self) -> i64 {
        self.get() - 1
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self::ONE
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Units of a product that buyers of one network address may take in all: 1 to 10,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = BigInt)]
#[serde(try_from = "i64", into = "i64")]
pub struct AddressLimit(i64);

impl AddressLimit {
    /// As a number to count with.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// A currency of ISO 4217, by its three letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
#[serde(try_from = "String", into = "&'static str")]
pub struct Currency(iso_currency::Currency);

impl Currency {
    /// Its three letters.
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// Digits of its minor unit: 2 of most.
    pub fn digits(self) -> u16 {
        self.0.exponent().unwrap_or_default()
    }
}

impl TryFrom<&str> for Currency {
    type Error = String;

    fn try_from(code: &str) -> Result<Self, Self::Error> {
        let known = iso_currency::Currency::from_code(code).map(Self);
        known.ok_or_else(|| "must be a currency of ISO 4217, in capitals, such as USD".to_owned())
    }
}

impl TryFrom<String> for Currency {
    type Error = String;

    fn try_from(code: String) -> Result<Self, Self::Error> {
        code.as_str().try_into()
    }
}

impl From<Currency> for &'static str {
    fn from(currency: Currency) -> Self {
        currency.code()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl<DB: Backend> ToSql<Text, DB> for Currency
where
    str: ToSql<Text, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
        <str as ToSql<Text, DB>>::to_sql(self.code(), out)
    }
}

impl<DB: Backend> FromSql<Text, DB> for Currency
where
    String: FromSql<Text, DB>,
{
    fn from_sql(raw: DB::RawValue<'_>) -> deserialize::Result<Self> {
        let code = <String as FromSql<Text, DB>>::from_sql(raw)?;
        Self::try_from(code.as_str()).map_err(|problem| format!("{code:?} {problem}").into())
    }
}

/// Makes a number that has bounds: others are refused, also when they are read.
macro_rules! bounded_number {
    ($type:ident, $bounds:pat, $problem:literal) => {
        impl TryFrom<i64> for $type {
            type Error = &'static str;

            fn try_from(number: i64) -> Result<Self, Self::Error> {
                match number {
                    $bounds => Ok(Self(number)),
                    _ => Err($problem),
                }
            }
        }

        impl From<$type> for i64 {
            fn from(number: $type) -> Self {
                number.0
            }
        }

        impl<DB: Backend> ToSql<BigInt, DB> for $type
        where
            i64: ToSql<BigInt, DB>,
        {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
                self.0.to_sql(out)
            }
        }

        impl<DB: Backend> FromSql<BigInt, DB> for $type
        where
            i64: FromSql<BigInt, DB>,
        {
            fn from_sql(raw: DB::RawValue<'_>) -> deserialize::Result<Self> {
                let number = i64::from_sql(raw)?;
                Self::try_from(number).map_err(|problem| format!("{number} {problem}").into())
            }
        }
    };
}
bounded_number!(PaymentWindow, 5..=2_592_000, "must be 5 to 2592000 (30 days)");
bounded_number!(Quantity, 1..=10, "must be 1 to 10");
bounded_number!(AddressLimit, 1..=10_000_000, "must be 1 to 10000000");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_as_they_were_written_with_and_without_a_limit_of_an_address() {
        let terms = |payment_window, max_per_address| Terms {
            price_cents: 1990,
            payment_window,
            max_per_order: Quantity(2),
            max_per_address,
        };
        for (terms, text) in [
            (terms(None, None), "1990::2"),
            (terms(Some(PaymentWindow(900)), None), "1990:900:2"),
            (terms(Some(PaymentWindow(900)), Some(AddressLimit(5))), "1990:900:2:@5"),
        ] {
            assert_eq!(terms.to_string(), text);
            assert_eq!(text.parse(), Ok(terms));
        }
        for wrong in ["", "1990:900", "1990:900:2:5", "1990:900:2:@", "1990:900:2:@0", "1990:900:2:@5:6", "1990:900:11"]
        {
            assert!(wrong.parse::<Terms>().is_err(), "{wrong}");
        }
    }
}
