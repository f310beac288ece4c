//! What merchants change: products are put on sale, changed, restocked.
//!
//! Every change goes to the database first; the gate follows.

use std::sync::{Arc, OnceLock};

use garde::Validate;
use tokio::runtime::Handle;

use super::change_log;
use super::creation;
use super::idempotency::{Answered, Answers, IdempotencyKey, new_key, use_key};
use super::queries::ProductQueries;
use super::requests::{Archive, CreateProduct, MAX_STOCK, PatchProduct, Restock, Revisions, check_window};
use super::view::ProductView;
use crate::config::Config;
use crate::db::{Db, DbConn, NewKey, NewProduct, Offer, ProductChange, ProductLock};
use crate::error::{Error, Result};
use crate::model::{Currency, PaymentWindow, Product, ProductId, SaleState};
use crate::services::accounts::Identity;
use crate::services::admin_log::Noted;
use crate::services::known_products::KnownProducts;
use crate::services::recovery::{Gates, offer_at_least};
use crate::stock::{GateError, GateServers, StockGate};

/// Changes products.
pub struct ProductCommands {
    db: Db,
    gate: Arc<StockGate>,
    known: Arc<KnownProducts>,
    gates: Arc<Gates>,
    products: Arc<ProductQueries>,
    answers: Answers,
    /// Of products that name none.
    currency: Currency,
    payment_window: Option<PaymentWindow>,
    runtime: Handle,
}

impl ProductCommands {
    /// Keeps products in `db`, and tells `gate`. Must be called on the main runtime.
    pub fn new(
        db: Db,
        gate: Arc<StockGate>,
        gates: Arc<Gates>,
        known: Arc<KnownProducts>,
        products: Arc<ProductQueries>,
        config: &Config,
    ) -> Self {
        let answers = Answers::new(db.clone());
        let (currency, payment_window) = (config.shop.currency, config.payment_window());
        Self { db, gate, known, gates, products, answers, currency, payment_window, runtime: Handle::current() }
    }

    /// Puts a product on sale.
    pub async fn create(&self, by: Identity, key: Option<IdempotencyKey>, request: CreateProduct) -> Result<Answered> {
        request.validate()?;
        check_window(request.starts_at.unwrap_or_else(|| self.gate.now()), request.ends_at)?;
        let key = key.map(|key| new_key(by, key, "POST /products", &request));
        if let Some(first) = self.first_answer(key.as_ref()).await? {
            return Ok(first);
        }
        let servers = Arc::new(self.gate.servers().await?);
        let (product, noted) = match self.insert(by, request, &servers, key.clone()).await {
            Ok(made) => made,
            Err(error) => return self.first_answer_after(error, key.as_ref()).await,
        };
        self.open_gate(&product, &servers).await;
        self.known.made(product.id);
        self.products.changed();
        noted.log();
        self.answer(key, product).await
    }

    /// Writes a new product, together with the use of `key`. When the result of the commit is unknown, and cannot be found out,
    /// the product is taken off sale, for its merchant is told that there is none.
    async fn insert(
        &self,
        by: Identity,
        request: CreateProduct,
        servers: &Arc<GateServers>,
        key: Option<NewKey>,
    ) -> Result<(Product, Noted)> {
        // By the clock that opens sales, which was just asked: one that starts now can be bought at once.
        let now = self.gate.now();
        let starts_at = request.starts_at.unwrap_or(now);
        check_window(starts_at, request.ends_at)?;
        let product = NewProduct {
            name: request.name,
            description: request.description,
            price_cents: request.price_cents,
            stock: request.stock,
            starts_at,
            ends_at: request.ends_at,
            created_at: now,
            currency: request.currency.unwrap_or(self.currency),
            payment_window: request.payment_window_seconds.unwrap_or(self.payment_window),
            max_per_order: request.max_per_order.unwrap_or_default(),
            max_per_address: request.max_per_address,
            image_url: request.image_url,
            paused: request.draft.unwrap_or_default(),
            draft: request.draft.unwrap_or_default(),
        };
        // With a key, a repeat finds the product.
        let is_repeatable = key.is_some();
        let made = Arc::new(OnceLock::new());
        let note = made.clone();
        let (gate, servers) = (self.gate.clone(), servers.clone());
        let created = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let id = conn.insert_product(&product).await?;
                    let _ = note.set(id);
                    // Which one that is depends on the product's id.
                    if let Some(server) = gate.server_of(&servers, id).await {
                        conn.set_gate_home(id, &server).await?;
                    }
                    use_key(conn, key, id).await?;
                    let product = find(conn, id).await?;
                    let noted = change_log::note_new(conn, by, &product).await?;
                    Ok((product, noted))
                })
            })
            .await;
        let created = if fails!("lose_commit") { Err(Error::Unavailable("on purpose".to_owned())) } else { created };
        // Any other error came before the commit.
        let (Err(Error::Unavailable(_)), Some(id)) = (&created, made.get().copied()) else { return created };
        match creation::look_for(&self.db, id).await {
            Some(product) => {
                let noted = change_log::found(by, &product);
                Ok((product, noted))
            }
            None => {
                if !is_repeatable {
                    self.runtime.spawn(creation::withdraw(self.db.clone(), id));
                }
                created
            }
        }
    }

    /// Nothing can be in flight for a product that did not exist, so its gate opens without a wait. The product exists from
    /// here on, so a failure is no reason to say that it does not: the sweeper opens the gate then.
    async fn open_gate(&self, product: &Product, servers: &GateServers) {
        let opened = match self.gate.server_of(servers, product.id).await {
            _ if fails!("open_new") => Err(GateError::Unclear("on purpose".to_owned())),
            Some(server) => self.gates.open_first(product.id, &server, &product.settings()).await,
            None => Err(GateError::Unreachable("its server does not answer".to_owned())),
        };
        if let Err(error) = opened {
            tracing::warn!(product.id = %product.id, %error, "The gate of a new product is not open yet");
        }
    }

    /// The answer that the first request with this key was given.
    async fn first_answer(&self, key: Option<&NewKey>) -> Result<Option<Answered>> {
        self.answers.first(key, async |product| self.products.read(product).await).await
    }

    /// The same when another request with this key got there first, after which the product has a new revision; else the
    /// error itself.
    async fn first_answer_after(&self, error: Error, key: Option<&NewKey>) -> Result<Answered> {
        match error {
            Error::IdempotencyConflict | Error::PreconditionFailed { .. } => self.first_answer(key).await?.ok_or(error),
            error => Err(error),
        }
    }

    /// The answer to what was done to a product.
    async fn answer(&self, key: Option<NewKey>, product: Product) -> Result<Answered> {
        self.answers.keep(key, &self.products.view_of_change(product).await).await
    }

    /// Changes a product that has one of `revisions`.
    pub async fn patch(
        &self,
        by: Identity,
        id: ProductId,
        revisions: Revisions,
        request: PatchProduct,
    ) -> Result<ProductView> {
        request.validate()?;
        let (stock, reason) = (request.stock, request.reason);
        let is_published = request.draft == Some(false);
        if let Some(stock) = stock {
            // What the gate has promised may not be in the database yet.
            let taken = self.taken(id).await?;
            if stock < taken {
                return Err(Error::StockBelowSold { least: taken });
            }
        }
        let change = ProductChange {
            name: request.name,
            description: request.description,
            price_cents: request.price_cents,
            starts_at: request.starts_at,
            ends_at: request.ends_at,
            paused: request.paused,
            currency: request.currency,
            payment_window: request.payment_window_seconds,
            max_per_order: request.max_per_order,
            max_per_address: request.max_per_address,
            image_url: request.image_url,
            archived_at: None,
            draft: request.draft,
        };
        let (changed, noted) = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let (row, before) = lock(conn, id, &revisions).await?;
                    if before.archived_at.is_some() {
                        return Err(Error::Archived);
                    }
                    let change = published(change, &before)?;
                    let offer = match stock {
                        None => None,
                        Some(stock) if stock < row.sold => return Err(Error::StockBelowSold { least: row.sold }),
                        Some(stock) => Some(Offer::of(stock, row.given)),
                    };
                    conn.update_product(id, &change, offer).await?;
                    let product = find(conn, id).await?;
                    check_window(product.starts_at, product.ends_at)?;
                    let noted = change_log::note_changed(conn, by, &before, &product, reason).await?;
                    Ok((product, noted))
                })
            })
            .await?;
        if is_published {
            self.known.made(id);
            self.products.changed();
        }
        self.configure_gate(&changed).await;
        noted.log();
        if let Some(stock) = stock {
            // Clicks that came between the first look and the change keep their units: the offer is raised to what is taken.
            // Should this fail, the sweeper does it.
            let taken = self.taken(id).await.unwrap_or_default();
            if taken > stock
                && let Ok(Some(raised)) = offer_at_least(&self.db, id, taken).await
            {
                self.configure_gate(&raised).await;
                return Ok(self.products.view_of_change(raised).await);
            }
        }
        Ok(self.products.view_of_change(changed).await)
    }

    /// Units that are taken at the gate; none if it is not open: then the database says what is sold.
    async fn taken(&self, id: ProductId) -> Result<i64> {
        let view = self.gate.view(&[id]).await?.into_iter().next().flatten();
        Ok(view.map_or(0, |view| view.taken))
    }

    /// Takes a product whose sale does not go on out of the lists, and off sale for good. Its orders stay.
    pub async fn archive(
        &self,
        by: Identity,
        id: ProductId,
        revisions: Revisions,
        request: Archive,
    ) -> Result<ProductView> {
        request.validate()?;
        let now = self.gate.now();
        let archived = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let (_, before) = lock(conn, id, &revisions).await?;
                    if before.archived_at.is_some() {
                        return Ok((before, None));
                    }
                    if matches!(before.settings().state(1, now), SaleState::Live) {
                        return Err(Error::StillLive);
                    }
                    // Whoever changes it later puts nothing on sale: a product that is archived stays paused.
                    let change =
                        ProductChange { paused: Some(true), archived_at: Some(now), ..ProductChange::default() };
                    conn.update_product(id, &change, None).await?;
                    let product = find(conn, id).await?;
                    let noted = change_log::note_archived(conn, by, &product, request.reason).await?;
                    Ok((product, Some(noted)))
                })
            })
            .await;
        let (product, noted) = archived?;
        self.configure_gate(&product).await;
        if let Some(noted) = noted {
            noted.log();
        }
        Ok(self.products.view_of_change(product).await)
    }

    /// Adds units to a sale.
    pub async fn restock(
        &self,
        by: Identity,
        id: ProductId,
        key: Option<IdempotencyKey>,
        revisions: Revisions,
        request: Restock,
    ) -> Result<Answered> {
        request.validate()?;
        let units = request.units;
        let key = key.map(|key| new_key(by, key, &format!("POST /products/{id}/restock"), &request));
        if let Some(first) = self.first_answer(key.as_ref()).await? {
            return Ok(first);
        }
        let (stored_key, reason) = (key.clone(), request.reason);
        let restocked = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let (_, before) = lock(conn, id, &revisions).await?;
                    if before.archived_at.is_some() {
                        return Err(Error::Archived);
                    }
                    if !conn.add_stock(id, units, MAX_STOCK).await? {
                        return Err(Error::Invalid(format!("units: a sale can have {MAX_STOCK} units in all")));
                    }
                    use_key(conn, stored_key, id).await?;
                    let product = find(conn, id).await?;
                    let noted = change_log::note_restocked(conn, by, &product, units, reason).await?;
                    Ok((product, noted))
                })
            })
            .await;
        let (product, noted) = match restocked {
            Ok(restocked) => restocked,
            Err(error) => return self.first_answer_after(error, key.as_ref()).await,
        };
        self.configure_gate(&product).await;
        noted.log();
        self.answer(key, product).await
    }

    /// A gate that is closed takes the terms from the database when it is opened. One that is missing may have been taken away
    /// because its sale had ended. What is found in the place of a gate that was retired is not the product's.
    ///
    /// The change is committed, so a gate that does not answer is no reason to say that it was not made: the sweeper of
    /// every instance repeats it within a second.
    async fn configure_gate(&self, product: &Product) {
        let told = match product.retired {
            true => Err(GateError::Lost),
            false => self.gate.configure(product.id, &product.settings()).await,
        };
        let configured = match told {
            Ok(()) | Err(GateError::Closed) => Ok(()),
            Err(GateError::Lost) => self.gates.reopen(&product.sale()).await,
            Err(error) => Err(error.into()),
        };
        self.products.changed();
        if let Err(error) = configured {
            tracing::warn!(product.id = %product.id, %error, "The gate does not know of a change yet");
        }
    }
}

/// A draft stays paused until it is published, and goes on sale with that. What was published stays so: its buyers know it.
fn published(mut change: ProductChange, before: &Product) -> Result<ProductChange> {
    match (before.draft, change.draft) {
        (true, Some(false)) => change.paused = Some(change.paused.unwrap_or_default()),
        (true, _) if change.paused == Some(false) => return Err(Error::Draft),
        (false, Some(true)) => return Err(Error::Published),
        _ => {}
    }
    Ok(change)
}

/// Locks a product that is about to be changed, if it has one of `revisions`: of two who name the same, the second is refused.
async fn lock(conn: &mut DbConn, id: ProductId, revisions: &Revisions) -> Result<(ProductLock, Product)> {
    let row = conn.lock_product(id).await?.ok_or(Error::ProductNotFound)?;
    let product = find(conn, id).await?;
    revisions.expect(&product)?;
    Ok((row, product))
}

async fn find(conn: &mut DbConn, id: ProductId) -> Result<Product> {
    conn.find_product(id).await?.ok_or(Error::ProductNotFound)
}
