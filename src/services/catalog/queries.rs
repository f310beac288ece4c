//! What is on sale, as everybody sees it.

use std::sync::Arc;

use moka::future::Cache;

use super::page_cache::{self, PageCache, RenderedPage, Timed};
use super::requests::SaleFilter;
use super::view::ProductView;
use crate::db::{self, Db};
use crate::error::{Error, Result};
use crate::model::{Currency, Product, ProductId, SaleState, Timestamp};
use crate::services::known_products::KnownProducts;
use crate::services::page::Page;
use crate::stock::StockGate;

/// Products that were just looked at and are kept, at most.
const MAX_SEEN: u64 = 10_000;

/// Looks at products.
pub struct ProductQueries {
    db: Db,
    gate: Arc<StockGate>,
    known: Arc<KnownProducts>,
    page_cache: PageCache,
    seen: Cache<ProductId, Arc<ProductView>>,
    /// Of products from before they had a currency of their own.
    currency: Currency,
}

impl ProductQueries {
    /// Reads `db`, and asks `gate` what remains.
    pub fn new(db: Db, gate: Arc<StockGate>, known: Arc<KnownProducts>, currency: Currency) -> Self {
        let seen = Cache::builder().max_capacity(MAX_SEEN).time_to_live(page_cache::LIFETIME).build();
        Self { db, gate, known, page_cache: PageCache::new(), seen, currency }
    }

    /// One product; what changes elsewhere is seen within 200 ms.
    pub async fn get(&self, id: ProductId) -> Result<RenderedPage> {
        let read = async { Ok((self.read_published(id).await?, self.gate.now())) };
        self.if_known(id, self.page_cache.get(page_cache::PageKey::Product(id), read)).await
    }

    /// The same, not rendered: read once for all who ask within a tenth of a second.
    pub(in crate::services) async fn seen(&self, id: ProductId) -> Result<Arc<ProductView>> {
        let read = async { self.read_published(id).await.map(Arc::new) };
        let seen = async { self.seen.try_get_with(id, read).await.map_err(|error| (*error).clone()) };
        self.if_known(id, seen).await
    }

    /// Looks for a product, unless nobody has given out its id.
    async fn if_known<T>(&self, id: ProductId, look: impl Future<Output = Result<T>>) -> Result<T> {
        if !self.known.may_exist(id).await? {
            return Err(Error::ProductNotFound);
        }
        let found = look.await;
        if let Err(Error::ProductNotFound) = found {
            self.known.missed(id);
        }
        found
    }

    /// For administrators: one product, also a draft, as it is now.
    pub async fn get_any(&self, id: ProductId) -> Result<ProductView> {
        Ok(self.read(id).await?.at(self.gate.now()))
    }

    /// To everybody else a draft is not there.
    async fn read_published(&self, id: ProductId) -> Result<ProductView> {
        Some(self.read(id).await?).filter(|product| !product.draft).ok_or(Error::ProductNotFound)
    }

    pub(in crate::services) async fn read(&self, id: ProductId) -> Result<ProductView> {
        let product = self
            .db
            .read_within_share(db::ConnectionShare::Products, move |conn| Box::pin(conn.find_product(id)))
            .await?;
        self.view(product.ok_or(Error::ProductNotFound)?).await
    }

    /// Products, newest first; what changes elsewhere is seen within 200 ms.
    pub async fn list(
        &self,
        filter: Option<SaleFilter>,
        cursor: Option<ProductId>,
        limit: usize,
    ) -> Result<RenderedPage> {
        let read = async { Ok((self.read_list(filter, cursor, limit).await?, self.gate.now())) };
        self.page_cache.get(page_cache::PageKey::List(filter, cursor, limit), read).await
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
            .read_within_share(db::ConnectionShare::Products, move |conn| {
                Box::pin(conn.list_products(state, now, before, wanted))
            })
            .await?;
        self.page(products, limit).await
    }

    /// For administrators: all products, the newest first, those included that are archived; `archived`: only those that are, or
    /// are not.
    pub async fn list_all(
        &self,
        archived: Option<bool>,
        cursor: Option<ProductId>,
        limit: usize,
    ) -> Result<Page<ProductView>> {
        let before = cursor.map(ProductId::get);
        let wanted = limit as i64 + 1;
        let products = self.db.read_within_share(db::ConnectionShare::Products, move |conn| {
            Box::pin(async move { Ok::<_, Error>(conn.list_all_products(archived, before, wanted).await?) })
        });
        let mut page = self.page(products.await?, limit).await?;
        page.rendered_at(self.gate.now());
        Ok(page)
    }

    async fn page(&self, products: db::Readable<Product, i64>, limit: usize) -> Result<Page<ProductView>> {
        let go_on_after = if products.count > limit { products.keys.last() } else { None };
        let go_on_after = go_on_after.filter(|id| ProductId::try_from(**id).is_ok()).map(i64::to_string);
        let page = Page::cut(products.rows, limit, go_on_after, |product| product.id.to_string());
        Ok(Page { items: self.views(page.items).await?, next_cursor: page.next_cursor })
    }

    /// Those of these products that there are, as they are now.
    pub(in crate::services) async fn read_all(&self, ids: Vec<ProductId>) -> Result<Vec<ProductView>> {
        let read = self.db.read_within_share(db::ConnectionShare::Products, move |conn| {
            Box::pin(async move { Ok::<_, Error>(conn.find_products(&ids).await?) })
        });
        self.views(read.await?).await
    }

    /// The time by which sales begin and end.
    pub fn now(&self) -> Timestamp {
        self.gate.now()
    }

    /// Something has changed here, which must be seen at once.
    pub(in crate::services) fn changed(&self) {
        self.page_cache.forget();
    }

    async fn view(&self, product: Product) -> Result<ProductView> {
        let gate = self.gate.view(&[product.id]).await?.into_iter().next().flatten();
        Ok(ProductView::new(product, gate, self.gate.now(), self.currency))
    }

    /// The product as it has become; as the database has it, if the gate does not answer.
    pub(in crate::services) async fn view_of_change(&self, product: Product) -> ProductView {
        let gate = self.gate.view(&[product.id]).await.ok().and_then(|views| views.into_iter().next().flatten());
        let now = self.gate.now();
        let mut view = ProductView::new(product, gate, now, self.currency);
        view.rendered_at(now);
        view
    }

    async fn views(&self, products: Vec<Product>) -> Result<Vec<ProductView>> {
        let ids: Vec<ProductId> = products.iter().map(|product| product.id).collect();
        let gates = self.gate.view(&ids).await?;
        let now = self.gate.now();
        let view = |(product, gate)| ProductView::new(product, gate, now, self.currency);
        Ok(products.into_iter().zip(gates).map(view).collect())
    }
}
