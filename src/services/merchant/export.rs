//! A merchant's orders as a file: CSV as RFC 4180 has it, read page by page while it is sent, so that a million orders take no more room
//! than a thousand.

use std::sync::Arc;
use std::time::Duration;

use csv::{QuoteStyle, Terminator, WriterBuilder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::filter::OrderFilter;
use super::order_list::{MerchantOrder, OrderList};
use crate::error::{Error, Result};
use crate::model::{Currency, PaymentStatus, Timestamp};
use crate::services::page::Page;

/// Files at once: each keeps one of the connections that pages of orders may use busy for as long as its reader is quick.
const MAX_EXPORTS: usize = 2;
/// Orders that are read at a time.
const PAGE: usize = 500;
/// A page that cannot be read is tried so often, with a pause between: a file that breaks off is of no use.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
/// By which spreadsheets know a file as UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// As the fields of an order are called in JSON; besides, the total with the currency's point, the payment that paid the order or else
/// the newest, and how many there are.
const COLUMNS: [&str; 22] = [
    "id",
    "product_id",
    "product_name",
    "price_cents",
    "quantity",
    "total_cents",
    "currency",
    "total",
    "revision",
    "status",
    "reason",
    "created_at",
    "updated_at",
    "expires_at",
    "paid_at",
    "user_id",
    "username",
    "payment_id",
    "payment_provider",
    "payment_status",
    "payment_reference",
    "payments",
];

/// See the module.
pub struct Exports {
    list: Arc<OrderList>,
    running: Arc<Semaphore>,
}

/// A file that is being written.
pub struct Export {
    list: Arc<OrderList>,
    filter: OrderFilter,
    begun_at: Timestamp,
    place: Place,
    _running: OwnedSemaphorePermit,
}

/// How far a file is.
enum Place {
    Begin,
    Before(Uuid),
    End,
}

impl Exports {
    /// Of the orders of `list`.
    pub fn new(list: Arc<OrderList>) -> Self {
        Self { list, running: Arc::new(Semaphore::new(MAX_EXPORTS)) }
    }

    /// Begins a file of all orders to which a filter applies.
    pub fn begin(&self, filter: OrderFilter) -> Result<Export> {
        let running = self.running.clone().try_acquire_owned();
        let running =
            running.map_err(|_| Error::Unavailable("too many files of orders are being written".to_owned()))?;
        let (list, begun_at) = (self.list.clone(), Timestamp::now());
        Ok(Export { list, filter, begun_at, place: Place::Begin, _running: running })
    }
}

impl Export {
    /// A name for the file.
    pub fn file_name(&self) -> String {
        let now = self.begun_at.to_string();
        let day = now.get(..10).unwrap_or_default();
        format!("orders-{day}.csv")
    }

    /// The next piece of the file; `None`: it is at its end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut piece = Vec::new();
        // Pages without an order are no pieces.
        while piece.is_empty() {
            let before = match self.place {
                Place::Begin => None,
                Place::Before(before) => Some(before),
                Place::End => return Ok(None),
            };
            if before.is_none() {
                piece.extend_from_slice(BYTE_ORDER_MARK);
                piece = written(piece, [COLUMNS.map(str::to_owned)])?;
            }
            let Page { items, next_cursor } = self.read(before).await?;
            piece = written(piece, items.iter().map(cells))?;
            self.place = match next_cursor.map(|next| next.parse()) {
                None => Place::End,
                Some(Ok(next)) => Place::Before(next),
                Some(Err(_)) => return Err(Error::Internal("a page of orders has no place".to_owned())),
            };
        }
        Ok(Some(piece))
    }

    async fn read(&self, before: Option<Uuid>) -> Result<Page<MerchantOrder>> {
        let mut tries = 1;
        loop {
            match self.list.written(&self.filter, before, PAGE).await {
                Err(Error::Unavailable(_)) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                read => return read,
            }
        }
    }
}

/// Adds rows to a piece.
fn written<const N: usize>(piece: Vec<u8>, rows: impl IntoIterator<Item = [String; N]>) -> Result<Vec<u8>> {
    let failed = |error: &dyn std::fmt::Display| Error::Internal(format!("writing a file of orders: {error}"));
    let mut writer =
        WriterBuilder::new().terminator(Terminator::CRLF).quote_style(QuoteStyle::Necessary).from_writer(piece);
    for row in rows {
        writer.write_record(row).map_err(|error| failed(&error))?;
    }
    writer.into_inner().map_err(|error| failed(error.error()))
}

fn cells(order: &MerchantOrder) -> [String; COLUMNS.len()] {
    let MerchantOrder { order, user_id, username, payments } = order;
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    let paying = payments.iter().find(|payment| payment.status == PaymentStatus::Succeeded).or(payments.first());
    let word = |text: Option<&str>| text.unwrap_or_default().to_owned();
    [
        order.id.to_string(),
        order.product_id.to_string(),
        text(&order.product_name),
        order.price_cents.to_string(),
        order.quantity.get().to_string(),
        order.total_cents.to_string(),
        order.currency.code().to_owned(),
        in_words(order.total_cents, order.currency),
        order.revision.to_string(),
        order.status.as_str().to_owned(),
        word(order.reason.map(|reason| reason.as_str())),
        order.created_at.to_string(),
        order.updated_at.to_string(),
        time(order.expires_at),
        time(order.paid_at),
        user_id.to_string(),
        text(username.as_deref().unwrap_or_default()),
        paying.map(|payment| payment.id.to_string()).unwrap_or_default(),
        word(paying.map(|payment| payment.provider.as_str())),
        word(paying.map(|payment| payment.status.as_str())),
        text(paying.and_then(|payment| payment.reference.as_deref()).unwrap_or_default()),
        payments.len().to_string(),
    ]
}

/// An amount with its point, such as `19.90`.
fn in_words(cents: i64, currency: Currency) -> String {
    let digits = usize::from(currency.digits());
    if digits == 0 {
        return cents.to_string();
    }
    let all = format!("{cents:0width$}", width = digits + 1);
    let (whole, part) = all.split_at(all.len() - digits);
    format!("{whole}.{part}")
}

/// Somebody's text. A spreadsheet takes one that begins like this for a formula, and may run it: an apostrophe before it says that it
/// is none.
fn text(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) && !is_number(text);
    if is_formula { format!("'{text}") } else { text.to_owned() }
}

fn is_number(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned.split_once('.') {
        None => digits(unsigned),
        Some((whole, part)) => digits(whole) && digits(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_a_formula_unless_it_is_a_number() {
        for harmless in ["", "Sneaker", "a=b", "-5", "+1.50", " =1", "'x", "5-3"] {
            assert_eq!(text(harmless), harmless);
        }
        for formula in
            ["=1+1", "=cmd|' /C calc'!A0", "+SUM(A1)", "-1-1", "@x", "\tx", "\r=1", "\n=1", "-", "+.5", "-1."]
        {
            assert_eq!(text(formula), format!("'{formula}"));
        }
    }

    #[test]
    fn amounts_have_their_currency_s_point() {
        let of = |cents, code: &str| in_words(cents, Currency::try_from(code).unwrap());
        assert_eq!([of(1_990, "USD"), of(5, "USD"), of(0, "USD")], ["19.90", "0.05", "0.00"]);
        assert_eq!([of(1_990, "JPY"), of(1_990, "KWD")], ["1990", "1.990"]);
    }

    #[test]
    fn rows_are_quoted_where_they_must_be() {
        let rows = [["a,b".to_owned(), "say \"x\"".to_owned()], ["two\nlines".to_owned(), "plain".to_owned()]];
        let piece = written(BYTE_ORDER_MARK.to_vec(), rows).unwrap();
        assert_eq!(String::from_utf8(piece).unwrap(), "\u{feff}\"a,b\",\"say \"\"x\"\"\"\r\n\"two\nlines\",plain\r\n");
    }
}
