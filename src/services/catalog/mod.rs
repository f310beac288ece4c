//! What is on sale: products, their pages, and what administrators change.

#[expect(clippy::module_inception, reason = "its split into commands and queries takes this name away")]
mod catalog;
mod change_log;
mod creation;
mod idempotency;
mod page_cache;

pub use self::catalog::{Catalog, CreateProduct, PatchProduct, ProductView, Restock, SaleFilter};
pub use self::idempotency::{Answered, IdempotencyKey, KeyExpiry};
pub use self::page_cache::RenderedPage;
