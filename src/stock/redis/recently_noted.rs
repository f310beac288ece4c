//! Which products this instance has noted lately as being in flight, see `in_flight_index`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::ProductId;

/// A product that this instance has noted is not noted again for so long. Less than a rebuild of gates takes, which is what
/// follows when Redis was emptied.
const NOTED_FOR: Duration = Duration::from_secs(2);
/// Products that this instance remembers to have noted.
const MAX_NOTED: usize = 50_000;

/// What this instance has noted lately, and when.
#[derive(Default)]
pub(super) struct RecentlyNoted(Mutex<HashMap<ProductId, Instant>>);

impl RecentlyNoted {
    pub(super) fn has(&self, product: ProductId) -> bool {
        let noted = self.0.lock();
        noted.get(&product).is_some_and(|at| at.elapsed() < NOTED_FOR)
    }

    pub(super) fn note(&self, products: &[ProductId], at: Instant) {
        let mut noted = self.0.lock();
        if noted.len() + products.len() > MAX_NOTED {
            noted.retain(|_, at| at.elapsed() < NOTED_FOR);
        }
        let room = MAX_NOTED.saturating_sub(noted.len());
        noted.extend(products.iter().take(room).map(|product| (*product, at)));
    }
}
