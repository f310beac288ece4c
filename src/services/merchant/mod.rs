//! What a merchant looks at: what a sale has come to, whose orders there are, what was set aside. It changes nothing that sells, but
//! for dead letters, which it has put back or deleted.

mod dead_letters;
mod explorer;
mod export;
mod filter;
mod live;
mod order_list;
mod summary;

pub use self::dead_letters::{DeadLetterDesk, DeadLetterPage, ReplayedLetter};
pub use self::export::{Export, Exports};
pub use self::filter::{OrderFilter, OrderQuery, WrittenStatus};
pub use self::live::{Live, LiveFigures};
pub use self::order_list::{MerchantOrder, OrderList};
pub use self::summary::{Summaries, Summary};
