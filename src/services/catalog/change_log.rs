//! What the log says when the merchant changes a product: who, which, and what from what to what.

use std::fmt::{Debug, Write};

use crate::db::{Db, DbError};
use crate::model::Product;
use crate::services::accounts::Identity;

/// Writes a line. `what` is the sentence, `changes` what was changed. Names are quoted: they are somebody's text.
pub(in crate::services) async fn note(db: &Db, by: Identity, what: &str, product: &Product, changes: &str) {
    let admin = db.read::<_, DbError, _>(move |conn| Box::pin(conn.find_user(by.user_id))).await;
    // One of the shop's own directory has no name here, and none is worth an error.
    let name = admin.ok().flatten().map(|admin| admin.username);
    tracing::info!(
        admin.id = %by.user_id,
        admin.name = name.as_deref().unwrap_or("-"),
        product.id = %product.id,
        product.name = ?product.name,
        changes,
        "{what}"
    );
}

/// What differs between two states of a product, in one line.
pub(in crate::services) fn changes(old: &Product, new: &Product) -> String {
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
    changed(&mut line, "image_url", &old.image_url, &new.image_url);
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
