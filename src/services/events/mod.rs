//! Live events: who listens is told what a product or an order is now, and again at each change.
//!
//! One task looks at everything that is listened to, together; an event is encoded once for all who listen to it, and each of them
//! takes the newest when it can. So ten thousand listeners cost one look, a slow one keeps nothing waiting and nothing in memory, and
//! without listeners nobody looks. Each event is the whole truth: whoever missed some has missed nothing.
//!
//! Never here: what decides anything. A purchase does not know whether somebody listens.

mod fan_out;
mod listener;
mod orders;
mod products;

pub use self::listener::Listener;
pub use self::orders::OrderEvents;
pub use self::products::{ProductEvents, TimedProductEvent};

use std::time::Duration;

/// What people listen to is looked at so often, and told at most.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What is not urgent is told so rarely at most, however many listen.
const TELL_EVERY_IN_A_CROWD: Duration = Duration::from_secs(2);
/// Events that this process sends in a second at most, if none is urgent. With 10,000 a sale is a fifth slower.
const EVENTS_A_SECOND: u32 = 5_000;

/// How long one who listens hears nothing that is not urgent, after an event.
fn pace(listeners: usize) -> Duration {
    let paced = Duration::from_secs(1) * u32::try_from(listeners).unwrap_or(u32::MAX).min(1_000_000) / EVENTS_A_SECOND;
    paced.clamp(LOOK_EVERY, TELL_EVERY_IN_A_CROWD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_listen_the_rarer_they_are_told() {
        let ms = |listeners| pace(listeners).as_millis();
        assert_eq!([ms(0), ms(1), ms(1_000), ms(2_500), ms(5_000)], [200, 200, 200, 500, 1_000]);
        assert_eq!(ms(usize::MAX), 2_000);
    }
}
