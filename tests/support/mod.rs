//! What every test crate needs: stores of its own, patience, and tests on both backends.

mod stores;

use std::future::Future;
use std::time::{Duration, Instant};

pub use stores::Stores;

/// Asks again until `condition` holds; fails after ten seconds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    eventually_within(10, what, condition).await;
}

/// The same with another patience.
pub async fn eventually_within<F: Future<Output = bool>>(seconds: u64, what: &str, condition: impl Fn() -> F) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < Duration::from_secs(seconds), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Makes each `async fn name(subject)` a test on every backend. The test crate says what the subject is and how a test
/// on it is run.
#[macro_export]
macro_rules! on_both_backends {
    ($($(#[$doc:meta])* async fn $name:ident($subject:ident) $body:block)+) => {
        $($(#[$doc])* async fn $name($subject: &mut $crate::Subject) $body)+

        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::run(seckill::config::Backend::Embedded, super::$name).await;
            })+
        }

        mod distributed {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::run(seckill::config::Backend::Distributed, super::$name).await;
            })+
        }
    };
}
