//! Processes that a test started, and their signals. No other process is ever touched.

use std::net::TcpListener;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tokio::process::Child;

/// Below the ports that the system gives to outgoing connections: a client that tries again and again to reach a server
/// that is down could be given the server's own port.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() as u16;
    (0..PORTS.len())
        .map(|_| PORTS.start + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Sends a signal to a child that has not been waited for, so its number is still its own.
pub fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("it runs").to_string();
    let sent = std::process::Command::new("kill").args([format!("-{name}"), pid]).status().expect("kill");
    assert!(sent.success(), "kill -{name}: {sent}");
}

/// SIGKILL: no last words.
pub async fn kill(child: &mut Child) {
    child.kill().await.expect("it is killed");
}

/// SIGTERM; how it ended and after how long.
pub async fn terminate(child: &mut Child, patience: Duration) -> (ExitStatus, Duration) {
    let begun = Instant::now();
    signal(child, "TERM");
    match tokio::time::timeout(patience, child.wait()).await {
        Ok(status) => (status.unwrap(), begun.elapsed()),
        Err(_) => panic!("still running {patience:?} after SIGTERM"),
    }
}

/// Freezes a child for a while, as a paused virtual machine or a full disk would.
pub async fn freeze(child: &Child, time: Duration) {
    signal(child, "STOP");
    tokio::time::sleep(time).await;
    signal(child, "CONT");
}
