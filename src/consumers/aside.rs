//! Deliveries that could not be written and may be later, while others go on. They stay unacknowledged, so a restart brings
//! them back.
//!
//! Only what has waited for [`PATIENCE`] while others were written is hopeless. When nothing else is written, it is the
//! database that is wrong, and everything waits.

use std::time::{Duration, Instant};

use crate::model::{OrderId, ProductId};
use crate::queue::Delivery;

/// A replica that took over has caught up by then.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// More would soon be all that the broker hands out unacknowledged, and nothing else could come: then the oldest are parked.
const MOST: usize = 768;

/// See the module.
pub(super) struct Aside {
    held: Vec<Held>,
    /// When each of them failed first.
    known: Vec<Known>,
    written: usize,
    looked: Instant,
}

struct Held {
    delivery: Delivery,
    reason: String,
}

struct Known {
    order: OrderId,
    since: Instant,
    written_before: usize,
}

impl Aside {
    pub(super) fn new() -> Self {
        Self { held: Vec::new(), known: Vec::new(), written: 0, looked: Instant::now() }
    }

    /// Notes that other deliveries became orders.
    pub(super) fn written(&mut self, batches: usize) {
        self.written += batches;
    }

    /// Adds a delivery that has just failed; which are hopeless now.
    pub(super) fn add(&mut self, delivery: Delivery, reason: String) -> Vec<(Delivery, String)> {
        let Some(order) = first_order(&delivery) else { return vec![(delivery, reason)] };
        let known = match self.known.iter().position(|known| known.order == order) {
            Some(place) => place,
            None => {
                tracing::warn!(%reason, "Set a message aside; it is parked if that is so for {PATIENCE:?} and others are written");
                self.known.push(Known { order, since: Instant::now(), written_before: self.written });
                self.known.len() - 1
            }
        };
        let Known { since, written_before, .. } = self.known[known];
        if since.elapsed() >= PATIENCE && self.written > written_before {
            self.known.remove(known);
            return vec![(delivery, reason)];
        }
        // After a link has failed, the same message comes again on the next one.
        self.held.retain(|held| first_order(&held.delivery) != Some(order));
        self.held.push(Held { delivery, reason });
        if self.held.len() <= MOST || since.elapsed() < PATIENCE {
            return Vec::new();
        }
        let Held { delivery, reason } = self.held.remove(0);
        self.forget(&delivery);
        vec![(delivery, reason)]
    }

    /// A delivery has become orders.
    pub(super) fn forget(&mut self, delivery: &Delivery) {
        if !self.known.is_empty() {
            let order = first_order(delivery);
            self.known.retain(|known| Some(known.order) != order);
        }
    }

    /// When they should be looked at again.
    pub(super) fn due_in(&self) -> Option<Duration> {
        (!self.held.is_empty()).then(|| PAUSE.saturating_sub(self.looked.elapsed()))
    }

    /// Takes all of them, when it is time.
    pub(super) fn take_due(&mut self) -> Vec<Delivery> {
        if self.due_in() != Some(Duration::ZERO) {
            return Vec::new();
        }
        self.looked = Instant::now();
        self.held.drain(..).map(|held| held.delivery).collect()
    }

    /// Takes those of one product.
    pub(super) fn take_of(&mut self, product: ProductId) -> Vec<Delivery> {
        let of_product = |held: &mut Held| held.delivery.message().product_id() == product;
        self.held.extract_if(.., of_product).map(|held| held.delivery).collect()
    }
}

fn first_order(delivery: &Delivery) -> Option<OrderId> {
    delivery.purchases().first().map(|purchase| purchase.order_id)
}
