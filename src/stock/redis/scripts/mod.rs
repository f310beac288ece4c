//! The Lua scripts, one a step of a gate. Each is atomic, and none can be stopped between two of its writes.

use deadpool_redis::redis::{Cmd, Script};

use crate::model::SaleSettings;

/// Purchases a script takes at most: Lua's stack holds a few thousand arguments, and other clients wait meanwhile.
pub(super) const CHUNK: usize = 500;

pub(super) struct Scripts {
    pub(super) probe: Script,
    pub(super) reserve: Script,
    pub(super) mark_written: Script,
    pub(super) release: Script,
    pub(super) configure: Script,
    pub(super) close: Script,
    pub(super) install: Script,
    pub(super) retire: Script,
    pub(super) stale: Script,
    pub(super) readmit: Script,
    pub(super) admit_payment: Script,
    pub(super) mark_revived: Script,
    pub(super) revision_in_flight: Script,
    pub(super) note_in_flight: Script,
}

/// With functions that several scripts need.
macro_rules! with {
    ($($function:literal),+; $script:literal) => {
        Script::new(concat!($(include_str!($function),)+ include_str!($script)))
    };
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            probe: Script::new(include_str!("probe.lua")),
            reserve: with!("revision_at.lua", "units_of.lua"; "reserve.lua"),
            mark_written: Script::new(include_str!("mark_written.lua")),
            release: with!("units_of.lua"; "release.lua"),
            configure: Script::new(include_str!("configure.lua")),
            close: Script::new(include_str!("close.lua")),
            install: Script::new(include_str!("install.lua")),
            retire: Script::new(include_str!("retire.lua")),
            stale: with!("revision_at.lua"; "stale.lua"),
            readmit: with!("units_of.lua"; "readmit.lua"),
            admit_payment: with!("units_of.lua"; "admit_payment.lua"),
            mark_revived: Script::new(include_str!("mark_revived.lua")),
            revision_in_flight: with!("revision_at.lua"; "revision_in_flight.lua"),
            note_in_flight: Script::new(include_str!("note_in_flight.lua")),
        }
    }
}

/// The arguments that hold a sale's settings, in the order that the scripts read.
pub(super) fn add_settings(call: &mut Cmd, settings: &SaleSettings) {
    let ends = settings.ends_at.map(|end| end.unix_ms().to_string()).unwrap_or_default();
    call.arg(settings.revision)
        .arg(settings.stock)
        .arg(settings.starts_at.unix_ms())
        .arg(ends)
        .arg(i32::from(settings.paused))
        .arg(settings.terms.map(|terms| format!("{}|{terms}", settings.revision)).unwrap_or_default());
}
