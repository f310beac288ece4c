//! What every handler can reach: the services of this process, in one `web::Data`.

use std::sync::Arc;

use crate::model::{Networks, TrustedProxies};
use crate::services::{
    Accounts, AdminLog, Authenticator, DeadLetterDesk, Exports, Health, LiveFigures, OrderChanges, OrderEvents,
    OrderList, Orders, Payments, ProductCommands, ProductEvents, ProductQueries, Reconciler, ShopSettings, Summaries,
    Webhooks,
};
use crate::telemetry::Metrics;

/// The services that all HTTP workers share. What each worker has for itself is registered beside it.
pub struct AppState {
    /// Sign-up, log-in, log-out.
    pub accounts: Accounts,
    /// Who sent a request.
    pub authenticator: Arc<Authenticator>,
    /// What merchants do to products.
    pub catalog: ProductCommands,
    /// What administrators changed.
    pub admin_log: AdminLog,
    /// Products as everybody sees them.
    pub products: Arc<ProductQueries>,
    /// Orders of a buyer.
    pub orders: Arc<Orders>,
    /// What becomes of them.
    pub order_changes: Arc<OrderChanges>,
    /// How they are paid.
    pub payments: Arc<Payments>,
    /// All orders, for the merchant.
    pub order_list: Arc<OrderList>,
    /// The same as files.
    pub exports: Exports,
    /// Purchases that were set aside.
    pub dead_letters: DeadLetterDesk,
    /// What a sale has come to.
    pub summaries: Summaries,
    /// Where the shop is told what happens.
    pub webhooks: Arc<Webhooks>,
    /// What is left of products, live.
    pub product_events: Arc<ProductEvents>,
    /// What becomes of an order, live.
    pub order_events: Arc<OrderEvents>,
    /// What this instance does.
    pub live: LiveFigures,
    /// What everybody may know of the configuration.
    pub settings: ShopSettings,
    /// Whether the stores agree about a product.
    pub reconciler: Arc<Reconciler>,
    /// Whether this instance can sell.
    pub health: Arc<Health>,
    /// The metrics of this process.
    pub metrics: Arc<Metrics>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Addresses that many buyers share, so that no limit of an address counts there.
    pub shared_addresses: Networks,
}
