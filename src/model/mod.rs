//! The words of the sale: ids, times, accounts, products and orders. No I/O, no rules that need a store.

mod account;
mod amount;
mod denial;
mod event;
mod ids;
mod life;
mod network;
mod order;
mod payment;
mod product;
mod proxies;
mod purchase;
mod terms;
mod text;
mod time;
mod trace_parent;

pub use account::{Account, Password, Role, Username};
pub use amount::AtLeastZero;
pub use denial::Denial;
pub use event::{DeliveryStatus, EventType, EventTypes};
pub use ids::{AdminActionId, DeliveryId, EndpointId, OrderId, OrderIds, ProductId, UserId};
pub use life::{Call, LatePayment, Life};
pub use network::{Network, Networks};
pub use order::{ChangedBy, Order, OrderChange, OrderStatus, RejectReason, deadline};
pub use payment::{Payment, PaymentId, PaymentStatus, ProviderName};
pub use product::{Product, Revision, Sale, SaleSettings, SaleState};
pub use proxies::TrustedProxies;
pub use purchase::{Click, Purchase, PurchaseGroup};
pub use terms::{AddressLimit, Currency, PaymentWindow, Quantity, Terms};
pub use text::{is_plain, is_visible, plain_text_schema};
pub use time::Timestamp;
pub use trace_parent::TraceParent;

/// Makes an enum of words storable in a text column, the same words that JSON shows.
macro_rules! text_column {
    ($type:ty { $($variant:path => $word:literal),+ $(,)? }) => {
        impl $type {
            /// The word that stands for it in the database, in JSON and in logs.
            pub fn as_str(self) -> &'static str {
                match self { $($variant => $word),+ }
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok($variant),)+
                    other => Err(format!(concat!("unknown ", stringify!($type), " `{}`"), other)),
                }
            }
        }

        impl<DB> diesel::serialize::ToSql<diesel::sql_types::Text, DB> for $type
        where
            DB: diesel::backend::Backend,
            str: diesel::serialize::ToSql<diesel::sql_types::Text, DB>,
        {
            fn to_sql<'b>(&'b self, out: &mut diesel::serialize::Output<'b, '_, DB>) -> diesel::serialize::Result {
                diesel::serialize::ToSql::<diesel::sql_types::Text, DB>::to_sql(self.as_str(), out)
            }
        }

        impl<DB> diesel::deserialize::FromSql<diesel::sql_types::Text, DB> for $type
        where
            DB: diesel::backend::Backend,
            String: diesel::deserialize::FromSql<diesel::sql_types::Text, DB>,
        {
            fn from_sql(raw: DB::RawValue<'_>) -> diesel::deserialize::Result<Self> {
                let word = <String as diesel::deserialize::FromSql<diesel::sql_types::Text, DB>>::from_sql(raw)?;
                Ok(word.parse()?)
            }
        }
    };
}
use text_column;
