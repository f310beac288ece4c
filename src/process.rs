//! What this process asks of the system: that its files are private, that a crash writes no memory down, and which
//! signals tell it to stop.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, umask};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Files that this process makes are its user's alone, and a crash leaves no core file, which would hold every secret.
///
/// The limit is hard, so that nothing raises it again; systemd-coredump and apport obey it too. `PR_SET_DUMPABLE` would
/// go further, but it also hides `/proc/<pid>` from the service's own user: `ss -p`, `lsof` and `perf` would fail there.
pub fn keep_to_itself() {
    umask(Mode::RWXG | Mode::RWXO);
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "Cannot switch core dumps off");
    }
}

/// Whoever has started it as a service, such as systemd, learns that it serves.
pub fn tell_ready() {
    tell(sd_notify::NotifyState::Ready);
}

/// The same, that it begins to stop.
pub fn tell_stopping() {
    tell(sd_notify::NotifyState::Stopping);
}

/// Nothing happens where nobody wants to know.
fn tell(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "Cannot tell the service manager");
    }
}

/// SIGTERM, SIGINT (Ctrl-C) and SIGHUP (the terminal was closed).
///
/// The first one is `told`. A second one ends the process at once, whatever it does: what was acknowledged to a
/// client is durable, as after a crash.
pub struct StopSignals {
    told: watch::Receiver<Option<&'static str>>,
}

impl StopSignals {
    /// Catches them from now on.
    pub fn catch() -> Result<Self, String> {
        let catch = |kind| signal(kind).map_err(|error| format!("cannot catch signals: {error}"));
        let mut signals =
            [catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?, catch(SignalKind::hangup())?];
        let (first, told) = watch::channel(None);
        tokio::spawn(async move {
            first.send_replace(Some(any(&mut signals).await));
            let signal = any(&mut signals).await;
            tracing::warn!(signal, "Told to stop a second time: ending at once");
            std::process::exit(1);
        });
        Ok(Self { told })
    }

    /// Waits for the first one; its name.
    pub async fn told(&self) -> &'static str {
        let mut told = self.told.clone();
        let signal = told.wait_for(Option::is_some).await.map_or(None, |signal| *signal);
        match signal {
            Some(signal) => signal,
            // Whoever catches them ends with the process only.
            None => std::future::pending().await,
        }
    }
}

async fn any(signals: &mut [Signal; 3]) -> &'static str {
    let [terminate, interrupt, hangup] = signals;
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        _ = hangup.recv() => "SIGHUP",
    }
}
