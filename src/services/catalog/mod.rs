//! What is on sale: products as everybody sees them (queries), and what merchants change (commands).

mod change_log;
mod commands;
mod creation;
mod idempotency;
mod page_cache;
mod queries;
mod requests;
mod view;

pub use self::commands::ProductCommands;
pub use self::idempotency::{Answered, IdempotencyKey, KeyExpiry};
pub use self::page_cache::RenderedPage;
pub use self::queries::ProductQueries;
pub use self::requests::{Archive, CreateProduct, PatchProduct, Restock, Revisions, SaleFilter};
pub use self::view::ProductView;
