//! Orders: the one place that writes them, what becomes of them, and what buyers see of theirs.

mod changes;
mod expiry;
mod holdings;
mod lookup_filler;
mod order_writer;
mod payment_windows;
mod queries;
mod read_limit;
mod unfinished_sales;
mod view;
mod write_batch_size;

pub use self::changes::{Cancellation, Change, Changed, MadeChange, MarkPaid, OrderChanges, change_order, pay_orders};
pub use self::expiry::Expiry;
pub use self::holdings::Holdings;
pub use self::lookup_filler::LookupFiller;
pub use self::order_writer::{OrderWriter, WriteOutcome};
pub use self::queries::Orders;
pub use self::unfinished_sales::{LATELY, RETIRED_AFTER, UnfinishedSales};
pub use self::view::OrderView;
