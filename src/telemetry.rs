//! Logging.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Our own words from `info` on, those of the HTTP server from `warn` on.
const DEFAULT_FILTER: &str = "info,actix_server=warn";

/// Writes the log to standard error. `RUST_LOG` sets the levels.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    // Fails only where a log is set up already, as in tests.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .try_init();
}
