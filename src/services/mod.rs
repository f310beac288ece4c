//! The rules of the sale, a folder a domain. Knows no HTTP, no SQL, no Redis and no AMQP: only `db`, `stock` and `queue`.
//!
//! Domains build on each other in this order: accounts, the log of changes, deployment and the known products; orders; payments;
//! recovery; checkout and catalog; webhooks and live events, which show what all of them do. Signatures of webhooks know nobody.

mod accounts;
mod admin_log;
mod catalog;
mod checkout;
mod deployment;
mod events;
mod fields;
mod health;
mod http_client;
mod known_products;
mod merchant;
mod orders;
mod page;
mod payments;
mod recovery;
mod shop;
mod standard_webhooks;
mod webhooks;

pub use accounts::{
    Accounts, Authenticator, Credentials, Identification, Identity, Issued, LoggedIn, OwnToken, PasswordChange,
    PasswordHasher, Profile, Registered, Session, Tokens,
};
pub use admin_log::{AdminAction, AdminLog};
pub use catalog::{
    Answered, Archive, CreateProduct, IdempotencyKey, KeyExpiry, PatchProduct, ProductCommands, ProductQueries,
    ProductView, RenderedPage, Restock, Revisions, SaleFilter,
};
pub use checkout::{Accepted, Checkout, PurchaseBatcher};
pub use deployment::Membership;
pub use events::{Listener, OrderEvents, ProductEvents, TimedProductEvent};
pub use health::{Check, Checks, Health};
pub use http_client::http_client;
pub use known_products::KnownProducts;
pub use merchant::{
    DeadLetterDesk, DeadLetterPage, Export, Exports, Live, LiveFigures, MerchantOrder, OrderFilter, OrderList,
    OrderQuery, ReplayedLetter, Summaries, Summary, WrittenStatus,
};
pub use orders::{
    Cancellation, Change, Changed, Expiry, Holdings, LookupFiller, MadeChange, MarkPaid, OrderChanges, OrderView,
    OrderWriter, Orders, UnfinishedSales, WriteOutcome, change_order,
};
pub use page::Page;
pub use payments::{
    CallbackWriter, FollowUp, GateOpener, LateCallbackWriter, PaymentEventPurge, PaymentTasks, PaymentView, Payments,
    Revivals, TestOutcome, TestPage,
};
pub use recovery::{Audit, Gates, Rebuilder, Reconciler, Replay, Sweeper};
pub use shop::ShopSettings;
pub use webhooks::{
    CreateEndpoint, DeliveryView, EndpointView, PatchEndpoint, WebhookDispatcher, WebhookFanOut, WebhookPurge, Webhooks,
};
