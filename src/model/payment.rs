//! Payments: tries to pay an order, and what can become of them.

use std::fmt;
use std::str::FromStr;

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::prelude::Queryable;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Binary;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{AtLeastZero, Currency, OrderId, Timestamp, text_column};

/// Who takes the money. Stored with each payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, AsExpression, FromSqlRow, ToSchema)]
#[diesel(sql_type = diesel::sql_types::Text)]
#[serde(rename_all = "lowercase")]
pub enum ProviderName {
    /// Nobody: a page of ours where one pays or declines, for trying the shop out.
    Test,
    /// The shop's own payment service.
    External,
    /// Stripe's checkout.
    Stripe,
    /// It came another way, as an administrator says.
    Manual,
}

text_column!(ProviderName {
    ProviderName::Test => "test",
    ProviderName::External => "external",
    ProviderName::Stripe => "stripe",
    ProviderName::Manual => "manual",
});

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, AsExpression, FromSqlRow, ToSchema)]
#[diesel(sql_type = diesel::sql_types::Text)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// The buyer may pay; nobody has said yet what became of it.
    Pending,
    /// The money came, and paid the order.
    Succeeded,
    /// No money came.
    Failed,
    /// The money came and pays for nothing, or not any more: it must be given back.
    RefundDue,
    /// It was given back.
    Refunded,
}

text_column!(PaymentStatus {
    PaymentStatus::Pending => "pending",
    PaymentStatus::Succeeded => "succeeded",
    PaymentStatus::Failed => "failed",
    PaymentStatus::RefundDue => "refund_due",
    PaymentStatus::Refunded => "refunded",
});

/// A try to pay an order. An event keeps it as JSON, which a later version reads: a field that is added has a default.
#[derive(Debug, Clone, Queryable, Serialize, Deserialize)]
pub struct Payment {
    /// Its id.
    pub id: PaymentId,
    /// Of which order.
    pub order_id: OrderId,
    /// Who takes the money.
    pub provider: ProviderName,
    /// Where it stands.
    pub status: PaymentStatus,
    /// How much, in minor units.
    #[diesel(deserialize_as = AtLeastZero)]
    pub amount_cents: i64,
    /// Of what; `None`: the shop's own currency.
    pub currency: Option<Currency>,
    /// The provider's own id of it.
    pub reference: Option<String>,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When its status last changed.
    pub updated_at: Timestamp,
    /// Where the buyer pays, of a provider that gives each payment an address of its own.
    pub redirect_url: Option<String>,
    /// The provider's own id of that checkout.
    pub checkout: Option<String>,
    /// Answers of the provider that must not be repeated: part of what a request is known by there.
    pub spent_tries: i64,
}

/// Id of a payment: a UUIDv7.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, AsExpression, FromSqlRow,
)]
#[diesel(sql_type = Binary)]
#[serde(transparent)]
pub struct PaymentId(Uuid);

impl PaymentId {
    /// A new one. Who knows it may pay, as with any checkout's address: 74 of its bits are random.
    pub fn draw() -> Self {
        Self(Uuid::now_v7())
    }

    /// What a row holds.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, String> {
        Uuid::from_slice(bytes).map(Self).map_err(|_| format!("{} bytes are no payment id", bytes.len()))
    }
}

impl From<PaymentId> for Uuid {
    fn from(id: PaymentId) -> Self {
        id.0
    }
}

impl FromStr for PaymentId {
    type Err = &'static str;

    /// The hyphenated form only: one payment has one address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != OrderId::LENGTH || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err("must be a UUID in small letters");
        }
        Uuid::try_parse(text).map(Self).map_err(|_| "must be a UUID")
    }
}

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<DB: Backend> ToSql<Binary, DB> for PaymentId
where
    [u8]: ToSql<Binary, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
        <[u8] as ToSql<Binary, DB>>::to_sql(self.0.as_bytes(), out)
    }
}

impl<DB: Backend> FromSql<Binary, DB> for PaymentId
where
    Vec<u8>: FromSql<Binary, DB>,
{
    fn from_sql(raw: DB::RawValue<'_>) -> deserialize::Result<Self> {
        let bytes = <Vec<u8> as FromSql<Binary, DB>>::from_sql(raw)?;
        Ok(Self::from_stored(&bytes)?)
    }
}
