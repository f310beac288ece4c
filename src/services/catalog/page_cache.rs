//! Products as they are shown: read and rendered once for all who look within a tenth of a second.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moka::future::Cache;
use serde::Serialize;

use super::requests::SaleFilter;
use crate::error::{Error, Result};
use crate::model::{ProductId, Timestamp};

/// `remaining` may be 200 ms old; reading takes some of that.
pub(super) const LIFETIME: Duration = Duration::from_millis(100);
/// All pages together, in bytes: a page of a hundred long descriptions has two million.
const MAX_BYTES: u64 = 32 << 20;
/// What an entry takes beside its page.
const ENTRY_BYTES: usize = 500;

/// Which page.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::services) enum PageKey {
    Product(ProductId),
    List(Option<SaleFilter>, Option<ProductId>, usize),
}

/// A page as JSON, and the tag by which a client recognises it.
#[derive(Debug, Clone)]
pub struct RenderedPage {
    /// The JSON.
    pub json: actix_web::web::Bytes,
    /// Another one for another page.
    pub tag: String,
    /// The same compressed, once somebody has asked for it.
    pub gzip: Arc<OnceLock<actix_web::web::Bytes>>,
}

/// A page that says when it was rendered.
pub(in crate::services) trait Timed: Serialize {
    /// Sets that time; until then it is not shown.
    fn rendered_at(&mut self, now: Timestamp);
}

impl RenderedPage {
    /// The tag is that of the page without its time: who has the page already learns the time from the reply's `Date`.
    fn new(mut page: impl Timed, now: Timestamp) -> Result<Self> {
        let mut hasher = DefaultHasher::new();
        render(&page)?.hash(&mut hasher);
        page.rendered_at(now);
        Ok(Self { tag: format!("{:016x}", hasher.finish()), json: render(&page)?.into(), gzip: Arc::default() })
    }
}

fn render(page: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(page).map_err(|error| Error::Internal(format!("rendering a page: {error}")))
}

/// The pages that were just looked at.
pub(in crate::services) struct PageCache {
    /// By the changes before they were read: a page that is being read while something changes is soon forgotten.
    pages: Cache<(u64, PageKey), RenderedPage>,
    changes: AtomicU64,
}

impl PageCache {
    pub(in crate::services) fn new() -> Self {
        let weight =
            |_: &(u64, PageKey), page: &RenderedPage| u32::try_from(page.json.len() + ENTRY_BYTES).unwrap_or(u32::MAX);
        let pages = Cache::builder().weigher(weight).max_capacity(MAX_BYTES).time_to_live(LIFETIME).build();
        Self { pages, changes: AtomicU64::default() }
    }

    /// The page, read now by one of those who ask if it is not there.
    pub(in crate::services) async fn get<T: Timed>(
        &self,
        page: PageKey,
        read: impl Future<Output = Result<(T, Timestamp)>>,
    ) -> Result<RenderedPage> {
        let rendered = async {
            let (page, now) = read.await?;
            RenderedPage::new(page, now)
        };
        let changes = self.changes.load(Ordering::Acquire);
        self.pages.try_get_with((changes, page), rendered).await.map_err(|error| (*error).clone())
    }

    /// Something has changed here, which must be seen at once.
    pub(in crate::services) fn forget(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}
