//! How many files and sockets the process may have open.

/// Kept for the stores, the log and what comes in a moment: never used for connections.
const RESERVED: u64 = 512;

/// Raises the soft limit of open descriptors to the hard one; how many connections that allows.
///
/// Many systems start a service with a soft limit of 1,024, which a thousand idle clients use up.
pub fn raise_descriptor_limit() -> usize {
    let limit = raised();
    // With very few, half of them.
    let usable = limit.saturating_sub(RESERVED).max(limit / 2);
    usize::try_from(usable).unwrap_or(usize::MAX)
}

#[cfg(target_os = "linux")]
fn raised() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let before = getrlimit(Resource::Nofile);
    if before.current == before.maximum {
        return before.current.unwrap_or(u64::MAX);
    }
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => {
            tracing::info!(before = before.current, now = before.maximum, "Raised the limit of open descriptors");
            before.maximum.unwrap_or(u64::MAX)
        }
        Err(error) => {
            tracing::warn!(%error, limit = before.current, "The limit of open descriptors stays as it is");
            before.current.unwrap_or(u64::MAX)
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn raised() -> u64 {
    1_024
}
