//! Logging.

use tracing_subscriber::EnvFilter;

/// Writes the log to standard error. `RUST_LOG` sets the level; `info` unless it says otherwise.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Fails only where a log is set up already, as in tests.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
