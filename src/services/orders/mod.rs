//! Orders: the one place that writes them, and what buyers see of theirs.

mod holdings;
mod order_writer;
mod queries;
mod read_limit;
mod unfinished_sales;
mod write_batch_size;

pub use self::holdings::Holdings;
pub use self::order_writer::{OrderWriter, WriteOutcome};
pub use self::queries::Orders;
pub use self::unfinished_sales::{LATELY, RETIRED_AFTER, UnfinishedSales};
