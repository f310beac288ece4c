//! What the log says when the merchant changes a product: who, which, and what from what to what.

use std::fmt::{Debug, Write};

use crate::db::DbConn;
use crate::error::Result;
use crate::model::Product;
use crate::services::accounts::Identity;
use crate::services::admin_log::{self, Noted};

fn object(product: &Product) -> String {
    format!("product {}", product.id)
}

fn new(product: &Product) -> String {
    let Product { name, stock, price_cents, starts_at, .. } = product;
    format!("name {name:?}, stock {stock}, price_cents {price_cents}, starts_at {starts_at}")
}

fn new_what(product: &Product) -> &'static str {
    if product.draft { "Made a draft" } else { "Put a product on sale" }
}

/// A product was made.
pub(in crate::services) async fn note_new(conn: &mut DbConn, by: Identity, product: &Product) -> Result<Noted> {
    admin_log::note(conn, by, new_what(product), object(product), new(product), None).await
}

/// A product that was made by a commit whose result was unknown for a while: it was noted with it.
pub(in crate::services) fn found(by: Identity, product: &Product) -> Noted {
    Noted::without_name(by, new_what(product), object(product), new(product))
}

/// A product was changed.
pub(in crate::services) async fn note_changed(
    conn: &mut DbConn,
    by: Identity,
    old: &Product,
    new: &Product,
    reason: Option<String>,
) -> Result<Noted> {
    let what = match (old.paused, new.paused) {
        _ if old.draft != new.draft => "Published a draft",
        (false, true) => "Paused a product",
        (true, false) => "Resumed a product",
        _ => "Changed a product",
    };
    admin_log::note(conn, by, what, object(new), changes(old, new), reason).await
}

/// Units were added.
pub(in crate::services) async fn note_restocked(
    conn: &mut DbConn,
    by: Identity,
    product: &Product,
    units: i64,
    reason: Option<String>,
) -> Result<Noted> {
    let what = format!("stock {} -> {}", product.stock - units, product.stock);
    admin_log::note(conn, by, "Restocked a product", object(product), what, reason).await
}

/// A product was archived.
pub(in crate::services) async fn note_archived(
    conn: &mut DbConn,
    by: Identity,
    product: &Product,
    reason: Option<String>,
) -> Result<Noted> {
    let what = format!("name {:?}", product.name);
    admin_log::note(conn, by, "Archived a product", object(product), what, reason).await
}

/// What differs between two states of a product, in one line.
fn changes(old: &Product, new: &Product) -> String {
    let mut line = String::new();
    changed(&mut line, "name", &old.name, &new.name);
    if old.description != new.description {
        // It may be long.
        changed(&mut line, "description (bytes)", &old.description.len(), &new.description.len());
    }
    changed(&mut line, "price_cents", &old.price_cents, &new.price_cents);
    changed(&mut line, "stock", &old.stock, &new.stock);
    let code = |product: &Product| product.currency.map(|currency| currency.code());
    changed(&mut line, "currency", &code(old), &code(new));
    let seconds = |product: &Product| product.payment_window.map(|window| window.seconds());
    changed(&mut line, "payment_window_seconds", &seconds(old), &seconds(new));
    changed(&mut line, "max_per_order", &old.max_per_order.get(), &new.max_per_order.get());
    let limit = |product: &Product| product.max_per_address.map_or("none".to_owned(), |limit| limit.get().to_string());
    changed(&mut line, "max_per_address", &limit(old), &limit(new));
    changed(&mut line, "image_url", &old.image_url, &new.image_url);
    changed(&mut line, "draft", &old.draft, &new.draft);
    changed(&mut line, "paused", &old.paused, &new.paused);
    let time = |time: Option<crate::model::Timestamp>| time.map_or("none".to_owned(), |time| time.to_string());
    let (starts, ends) =
        ((time(Some(old.starts_at)), time(Some(new.starts_at))), (time(old.ends_at), time(new.ends_at)));
    changed(&mut line, "starts_at", &starts.0, &starts.1);
    changed(&mut line, "ends_at", &ends.0, &ends.1);
    if line.is_empty() { "none".to_owned() } else { line }
}

fn changed<T: PartialEq + Debug>(line: &mut String, field: &str, old: &T, new: &T) {
    if old != new {
        let comma = if line.is_empty() { "" } else { ", " };
        let _ = write!(line, "{comma}{field} {old:?} -> {new:?}");
    }
}
