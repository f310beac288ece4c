//! Products: put on sale, shown, changed, restocked.
//!
//! Every change goes to the database first; the gate follows. `remaining` and `state` are the gate's own.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize};
use tokio::runtime::Handle;

use super::change_log;
use super::idempotency::{Answered, IdempotencyKey, new_key, use_key};
use super::page_cache::{self, PageCache, RenderedPage};
use crate::db::{self, Db, DbConn, NewProduct, ProductChange};
use crate::error::{Error, Result};
use crate::model::{Product, ProductId, SaleState, Timestamp, is_plain, is_visible};
use crate::services::accounts::Identity;
use crate::services::known_products::KnownProducts;
use crate::services::page::Page;
use crate::services::recovery::WarmUp;
use crate::stock::{GateError, GateView, StockGate};

/// Units a sale can have in all.
const MAX_STOCK: i64 = 10_000_000;
const PRICE_MOST_CENTS: i64 = 1_000_000_000_000;
const NAME_MOST_CHARS: usize = 200;
const DESCRIPTION_MOST_CHARS: usize = 5_000;
/// Epoch of the gate of a new product.
const FIRST_EPOCH: i64 = 1;

/// See the module.
pub struct Catalog {
    pub(in crate::services) db: Db,
    gate: Arc<StockGate>,
    known: Arc<KnownProducts>,
    warm_up: Arc<WarmUp>,
    page_cache: PageCache,
    pub(in crate::services) runtime: Handle,
}

/// A product as everybody sees it.
#[derive(Debug, Serialize)]
pub struct ProductView {
    pub(in crate::services) id: ProductId,
    name: String,
    description: String,
    price_cents: i64,
    revision: i64,
    stock: i64,
    remaining: i64,
    state: SaleState,
    starts_at: Timestamp,
    ends_at: Option<Timestamp>,
    paused: bool,
    created_at: Timestamp,
}

/// Body of `POST /products`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateProduct {
    name: String,
    #[serde(default)]
    description: String,
    price_cents: i64,
    stock: i64,
    starts_at: Option<Timestamp>,
    ends_at: Option<Timestamp>,
}

/// Body of `PATCH /products/{id}`: what is absent stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PatchProduct {
    #[serde(deserialize_with = "present")]
    name: Option<String>,
    #[serde(deserialize_with = "present")]
    description: Option<String>,
    #[serde(deserialize_with = "present")]
    price_cents: Option<i64>,
    #[serde(deserialize_with = "present")]
    starts_at: Option<Timestamp>,
    /// `null` makes the sale open-ended.
    #[serde(deserialize_with = "present")]
    ends_at: Option<Option<Timestamp>>,
    #[serde(deserialize_with = "present")]
    paused: Option<bool>,
}

/// A field that is there; `null` is a value like any other, and mostly a wrong one.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(field: D) -> std::result::Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

/// Body of `POST /products/{id}/restock`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Restock {
    units: i64,
}

/// `?state=` of the product list: looks at the window only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SaleFilter {
    /// Not begun.
    Upcoming,
    /// Begun and not ended.
    Live,
    /// Ended.
    Ended,
}

impl Catalog {
    /// Keeps products in `db`, and tells `gate`. Must be called on the main runtime.
    pub fn new(db: Db, gate: Arc<StockGate>, warm_up: Arc<WarmUp>, known: Arc<KnownProducts>) -> Self {
        Self { db, gate, known, warm_up, page_cache: PageCache::new(), runtime: Handle::current() }
    }

    /// One product; what changes elsewhere is seen within 200 ms.
    pub async fn get(&self, id: ProductId) -> Result<RenderedPage> {
        if !self.known.may_exist(id).await? {
            return Err(Error::ProductNotFound);
        }
        let page = self.page_cache.get(page_cache::Page::Product(id), self.read(id)).await;
        if let Err(Error::ProductNotFound) = page {
            self.known.missed(id);
        }
        page
    }

    pub(in crate::services) async fn read(&self, id: ProductId) -> Result<ProductView> {
        let product = self.db.read_page(db::Page::Products, move |conn| Box::pin(conn.find_product(id))).await?;
        self.view(product.ok_or(Error::ProductNotFound)?).await
    }

    /// Products, newest first; what changes elsewhere is seen within 200 ms.
    pub async fn list(
        &self,
        filter: Option<SaleFilter>,
        cursor: Option<ProductId>,
        limit: usize,
    ) -> Result<RenderedPage> {
        self.page_cache.get(page_cache::Page::List(filter, cursor, limit), self.read_list(filter, cursor, limit)).await
    }

    async fn read_list(
        &self,
        filter: Option<SaleFilter>,
        cursor: Option<ProductId>,
        limit: usize,
    ) -> Result<Page<ProductView>> {
        let state = filter.map(|filter| match filter {
            SaleFilter::Upcoming => SaleState::Upcoming,
            SaleFilter::Live => SaleState::Live,
            SaleFilter::Ended => SaleState::Ended,
        });
        let before = cursor.map(ProductId::get);
        let wanted = limit as i64 + 1;
        let now = self.gate.now();
        let products = self
            .db
            .read_page(db::Page::Products, move |conn| Box::pin(conn.list_products(state, now, before, wanted)))
            .await?;
        let left = if products.count > limit { products.keys.last() } else { None };
        let left = left.filter(|id| ProductId::try_from(**id).is_ok()).map(i64::to_string);
        let page = Page::cut(products.rows, limit, left, |product| product.id.to_string());
        Ok(Page { items: self.views(page.items).await?, next_cursor: page.next_cursor })
    }

    /// Puts a product on sale.
    pub async fn create(&self, by: Identity, key: Option<IdempotencyKey>, request: CreateProduct) -> Result<Answered> {
        check_name(&request.name)?;
        check_description(&request.description)?;
        check_price(request.price_cents)?;
        check_range("stock", request.stock, 0, MAX_STOCK)?;
        check_window(request.starts_at.unwrap_or_else(|| self.gate.now()), request.ends_at)?;
        let key = key.map(|key| new_key(by, key, "POST /products", &request));
        if let Some(first) = self.first_answer(key.as_ref()).await? {
            return Ok(first);
        }
        let server_id = self.gate.server_id().await?;
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
            gate_home: server_id.clone(),
            created_at: now,
        };
        let stored_key = key.clone();
        let made = Arc::new(OnceLock::new());
        let note = made.clone();
        let created = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let id = conn.insert_product(&product).await?;
                    let _ = note.set(id);
                    use_key(conn, stored_key, id).await?;
                    find(conn, id).await
                })
            })
            .await;
        let created = if fails!("lose_commit") { Err(Error::Unavailable("on purpose".to_owned())) } else { created };
        let made = made.get().copied();
        let product = match created {
            Ok(product) => product,
            Err(error) => match self.was_created(&error, made).await {
                Some(product) => product,
                None => {
                    if let (Error::Unavailable(_), Some(id), None) = (&error, made, &key) {
                        self.withdraw(id);
                    }
                    return self.first_answer_after(error, key.as_ref()).await;
                }
            },
        };
        // Nothing can be in flight for a product that did not exist, so its gate opens without a wait. The product exists
        // from here on, so this is no reason to say that it does not: when it fails, the sweeper opens the gate.
        let opened = match fails!("open_new") {
            true => Err(GateError::Unclear("on purpose".to_owned())),
            false => self.gate.open_new(product.id, &server_id, FIRST_EPOCH, &product.settings()).await,
        };
        if let Err(error) = opened {
            tracing::warn!(product.id = %product.id, %error, "The gate of a new product is not open yet");
        }
        self.known.made(product.id);
        self.page_cache.forget();
        let what =
            format!("stock {}, price_cents {}, starts_at {}", product.stock, product.price_cents, product.starts_at);
        change_log::note(&self.db, by, "Put a product on sale", &product, &what).await;
        self.remember(key, self.view_of_change(product).await).await
    }

    /// Changes a product.
    pub async fn patch(&self, by: Identity, id: ProductId, request: PatchProduct) -> Result<ProductView> {
        request.name.as_deref().map_or(Ok(()), check_name)?;
        request.description.as_deref().map_or(Ok(()), check_description)?;
        request.price_cents.map_or(Ok(()), check_price)?;
        let change = ProductChange {
            name: request.name,
            description: request.description,
            price_cents: request.price_cents,
            starts_at: request.starts_at,
            ends_at: request.ends_at,
            paused: request.paused,
        };
        let (before, changed) = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let before = find(conn, id).await?;
                    if !conn.update_product(id, &change).await? {
                        return Err(Error::ProductNotFound);
                    }
                    let product = find(conn, id).await?;
                    check_window(product.starts_at, product.ends_at)?;
                    Ok((before, product))
                })
            })
            .await?;
        let what = match (before.paused, changed.paused) {
            (false, true) => "Paused a product",
            (true, false) => "Resumed a product",
            _ => "Changed a product",
        };
        self.configure_gate(&changed).await;
        change_log::note(&self.db, by, what, &changed, &change_log::changes(&before, &changed)).await;
        Ok(self.view_of_change(changed).await)
    }

    /// Adds units to a sale.
    pub async fn restock(
        &self,
        by: Identity,
        id: ProductId,
        key: Option<IdempotencyKey>,
        request: Restock,
    ) -> Result<Answered> {
        let units = request.units;
        check_range("units", units, 1, MAX_STOCK)?;
        let key = key.map(|key| new_key(by, key, &format!("POST /products/{id}/restock"), &request));
        if let Some(first) = self.first_answer(key.as_ref()).await? {
            return Ok(first);
        }
        let stored_key = key.clone();
        let restocked = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    if !conn.add_stock(id, units, MAX_STOCK).await? {
                        conn.find_product(id).await?.ok_or(Error::ProductNotFound)?;
                        return Err(Error::Invalid(format!("units: a sale can have {MAX_STOCK} units in all")));
                    }
                    use_key(conn, stored_key, id).await?;
                    find(conn, id).await
                })
            })
            .await;
        let product = match restocked {
            Ok(product) => product,
            Err(error) => return self.first_answer_after(error, key.as_ref()).await,
        };
        let what = format!("stock {} -> {}", product.stock - units, product.stock);
        self.configure_gate(&product).await;
        change_log::note(&self.db, by, "Restocked a product", &product, &what).await;
        self.remember(key, self.view_of_change(product).await).await
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
            Err(GateError::Lost) => self.warm_up.reopen(&product.sale()).await,
            Err(error) => Err(error.into()),
        };
        self.page_cache.forget();
        if let Err(error) = configured {
            tracing::warn!(product.id = %product.id, %error, "The gate does not know of a change yet");
        }
    }

    async fn view(&self, product: Product) -> Result<ProductView> {
        let gate = self.gate.view(&[product.id]).await?.into_iter().next().flatten();
        Ok(view_of(product, gate, self.gate.now()))
    }

    /// The product as it has become; as the database has it, if the gate does not answer.
    async fn view_of_change(&self, product: Product) -> ProductView {
        let gate = self.gate.view(&[product.id]).await.ok().and_then(|views| views.into_iter().next().flatten());
        view_of(product, gate, self.gate.now())
    }

    async fn views(&self, products: Vec<Product>) -> Result<Vec<ProductView>> {
        let ids: Vec<ProductId> = products.iter().map(|product| product.id).collect();
        let gates = self.gate.view(&ids).await?;
        let now = self.gate.now();
        Ok(products.into_iter().zip(gates).map(|(product, gate)| view_of(product, gate, now)).collect())
    }
}

async fn find(conn: &mut DbConn, id: ProductId) -> Result<Product> {
    conn.find_product(id).await?.ok_or(Error::ProductNotFound)
}

/// A gate that is lost or closed cannot say; then the database does.
fn view_of(product: Product, gate: Option<GateView>, now: Timestamp) -> ProductView {
    let (remaining, state) = match gate {
        Some(gate) => (gate.remaining, gate.state),
        None => {
            let remaining = product.stock - product.sold;
            (remaining, product.settings().state(remaining, now))
        }
    };
    ProductView {
        id: product.id,
        name: product.name,
        description: product.description,
        price_cents: product.price_cents,
        revision: product.ver,
        stock: product.stock,
        remaining,
        state,
        starts_at: product.starts_at,
        ends_at: product.ends_at,
        paused: product.paused,
        created_at: product.created_at,
    }
}

fn check_name(name: &str) -> Result<()> {
    if !is_visible(name) || name.chars().count() > NAME_MOST_CHARS {
        return Err(Error::Invalid(format!("name: must be 1 to {NAME_MOST_CHARS} characters, and not all invisible")));
    }
    check_text("name", name)
}

fn check_description(description: &str) -> Result<()> {
    if description.chars().count() > DESCRIPTION_MOST_CHARS {
        return Err(Error::Invalid(format!("description: must be at most {DESCRIPTION_MOST_CHARS} characters")));
    }
    if !description.is_empty() && !is_visible(description) {
        return Err(Error::Invalid("description: must not be all invisible".to_owned()));
    }
    check_text("description", description)
}

fn check_text(field: &str, text: &str) -> Result<()> {
    is_plain(text).map_err(|problem| Error::Invalid(format!("{field}: {problem}")))
}

fn check_price(price_cents: i64) -> Result<()> {
    check_range("price_cents", price_cents, 0, PRICE_MOST_CENTS)
}

fn check_range(field: &str, value: i64, least: i64, most: i64) -> Result<()> {
    if !(least..=most).contains(&value) {
        return Err(Error::Invalid(format!("{field}: must be {least} to {most}")));
    }
    Ok(())
}

fn check_window(starts_at: Timestamp, ends_at: Option<Timestamp>) -> Result<()> {
    if ends_at.is_some_and(|end| end <= starts_at) {
        return Err(Error::Invalid("ends_at: must be after starts_at".to_owned()));
    }
    Ok(())
}
