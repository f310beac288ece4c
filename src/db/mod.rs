//! The database: pooled connections, and every query there is, a file for each subject. No rules of the sale.
//!
//! The methods of [`Db`] are the only ways in. They run their work on the main runtime, never on an actix worker's: a request that is
//! given up must not cut a query or a transaction in two. One exception: with SQLite, `Db::sell` works in its caller's task, so only
//! tasks of the main runtime may call it.

mod admin_log;
pub mod backup;
mod conn;
mod connect;
mod deployment;
mod diagnosis;
mod error;
mod external_users;
mod gates;
mod idempotency;
mod migrations;
mod mysql_servers;
mod named_lock;
mod order_changes;
mod order_gaps;
mod order_lookup;
mod order_search;
mod orders;
mod outbox;
mod packed_ids;
mod pairing;
mod passwords;
mod payment_deadlines;
mod payments;
mod pool;
mod products;
mod provider_checkouts;
mod readable;
mod revisions;
mod sales;
mod schema;
mod sqlite_writer;
mod token_withdrawals;
mod users;
mod wanted_events;
mod webhook_deliveries;
mod webhook_endpoints;
mod webhook_leases;

pub use self::admin_log::{AdminAction, NewAdminAction};
pub use self::conn::DbConn;
pub use self::deployment::{DeploymentRow, EpochsBegun, InstanceUse, Knows};
pub use self::error::{DbError, DbResult, ErrorClass, Refused};
pub use self::external_users::ExternalUser;
pub use self::gates::{GateRow, ProductLock, SaleAudit, SaleCounts, SaleRow};
pub use self::idempotency::{NewKey, StoredKey};
pub use self::mysql_servers::{check_mysql, connect_mysql};
pub use self::named_lock::NamedLock;
pub use self::order_changes::{Move, NewChange, OrderState};
pub use self::order_gaps::{Gap, NewGap};
pub use self::order_lookup::{LookupEntry, OrderPlace, lists_of_product, lists_of_status};
pub use self::orders::{NewOrder, WrittenOrder};
pub use self::outbox::PendingEvents;
pub use self::pairing::Pairing;
pub use self::payment_deadlines::{DueRange, NewDeadline, UnpaidOrder};
pub use self::payments::{NewPayment, NewPaymentEvent, PaymentChange};
pub use self::pool::{ConnectionShare, Db, WriteBatchLimits};
pub use self::products::{NewProduct, Offer, ProductChange};
pub use self::provider_checkouts::DueQuestion;
pub use self::readable::Readable;
pub use self::revisions::{RevisionRow, RevisionTerms, RevisionWindow};
pub use self::token_withdrawals::TokenWithdrawal;
pub use self::webhook_deliveries::{NewDelivery, WebhookDelivery};
pub use self::webhook_endpoints::{Endpoint, EndpointChange, NewEndpoint};
pub use self::webhook_leases::{ClaimedDelivery, TryResult};
