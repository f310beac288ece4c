//! The rebuild of a lost gate. Whoever does it may die at each step.

use super::System;
use crate::defects::Defect;
use crate::state::{Buyers, Gate, Held, Message, Meta, NOBODY, Rebuild, Request, State, Work};

impl System {
    /// Takes one step of a rebuild; what comes after it.
    pub(super) fn rebuild(&self, s: &mut State, at: Rebuild) -> Option<Rebuild> {
        Some(match at {
            Rebuild::Idle => return None,
            Rebuild::Inspect { epoch, retired: true, .. } if s.gate.meta.is_none_or(|meta| meta.epoch <= epoch) => {
                Rebuild::TakeRetired { epoch, run: s.run }
            }
            Rebuild::Inspect { epoch, server, .. } if self.takes_for_retired(s, server) => {
                Rebuild::TakeRetired { epoch, run: s.run }
            }
            Rebuild::Inspect { epoch, fence, server, .. } => inspect(s, epoch, fence, server),
            Rebuild::TakeRetired { epoch, run }
                if s.db.epoch == epoch && (s.db.retired || self.has(Defect::AnyGateGoneIsRetired)) =>
            {
                s.db.epoch = epoch + 1;
                s.db.fence = epoch + 1;
                s.db.server = run;
                s.db.retired = false;
                Rebuild::Close { epoch: epoch + 1, run, fenced: true }
            }
            Rebuild::TakeEpoch { epoch, run } if s.db.epoch == epoch => {
                s.db.epoch = epoch + 1;
                s.db.server = run;
                s.db.retired = false;
                Rebuild::Close { epoch: epoch + 1, run, fenced: false }
            }
            Rebuild::TakeEpoch { .. } | Rebuild::TakeRetired { .. } => Rebuild::Idle,
            Rebuild::Close { epoch, run, fenced } => close(s, epoch, run, fenced),
            Rebuild::Wait { epoch } => self.send_barrier(s, epoch),
            // A gate may have come and gone since: what this one closed is not what the database means now.
            Rebuild::Fenced { epoch, .. } if s.db.epoch != epoch && !self.has(Defect::OpenedWithoutAnotherLook) => {
                Rebuild::Idle
            }
            Rebuild::Fenced { epoch, run } => self.read_live(s, epoch, run),
            Rebuild::Read { epoch, run, live, offered, revision, ended } => {
                self.install(s, Meta { epoch, server: run, open: true, offered, revision, ended }, live);
                Rebuild::Idle
            }
            Rebuild::Sampled { epoch } => {
                // Stands for: this rebuilder raises the fence, reads and installs by itself.
                s.queue.push(Message::Barrier(epoch));
                Rebuild::Idle
            }
        })
    }

    fn send_barrier(&self, s: &mut State, epoch: u8) -> Rebuild {
        // The wait: by now every request that reserved under an older epoch is past its age limit.
        if !self.has(Defect::RebuildWithoutWaiting) {
            expire_older(s, epoch);
            // And every instance has read from the database that the gate is another one now.
            if !self.has(Defect::DeposedNeverTold) {
                s.deposed = None;
            }
        }
        if self.has(Defect::EmptyTwiceForBarrier) {
            for work in &mut s.work {
                if let Work::Has { old, .. } = work {
                    *old = true;
                }
            }
            return Rebuild::Sampled { epoch };
        }
        s.send(Message::Barrier(epoch), NOBODY);
        if self.has(Defect::LiveReadBeforeFence) { self.read_live(s, epoch, s.run) } else { Rebuild::Idle }
    }

    /// An instance of the deposed gate reads that it is deposed: it asks it no more, and gives no promise that came from it.
    pub(super) fn tell(&self, s: &mut State) {
        if let Some(Meta { epoch, .. }) = s.deposed.take().and_then(|gate| gate.meta) {
            expire_older(s, epoch + 1);
        }
    }

    /// The mistake to think that a gate of a sale that has ended once is gone because it was retired.
    fn takes_for_retired(&self, s: &State, server: u8) -> bool {
        self.has(Defect::AnyGateGoneIsRetired) && (s.run != server || s.gate.meta.is_none())
    }

    fn read_live(&self, s: &State, epoch: u8, run: u8) -> Rebuild {
        let mut live = s.live();
        if self.has(Defect::LoadedWithoutItsPayment) {
            live = live.map(|held| held.map(|held| Held::first(held.order)));
        }
        Rebuild::Read { epoch, run, live, offered: s.db.offered(), revision: s.db.revision, ended: s.db.ended }
    }

    /// Gate script.
    fn install(&self, s: &mut State, meta: Meta, live: Buyers) {
        let fits = |found: Meta| found.epoch == meta.epoch && (!found.open || self.has(Defect::InstallOverOpenGate));
        if s.run == meta.server && s.gate.meta.is_some_and(fits) {
            let extra = if self.has(Defect::ExtraNotLoaded) { 0 } else { self.units_of(&live) - count(&live) };
            s.gate = Gate { meta: Some(meta), buyers: live, extra, in_flight: 0, late: 0 };
        }
    }
}

/// Requests that reserved under an epoch before this one get no promise any more.
fn expire_older(s: &mut State, epoch: u8) {
    for request in &mut s.requests {
        match request {
            Request::Reserved { epoch: its, expired, .. } | Request::Published { epoch: its, expired, .. }
                if *its < epoch =>
            {
                *expired = true;
            }
            _ => {}
        }
    }
}

fn count(buyers: &Buyers) -> u8 {
    buyers.iter().flatten().count() as u8
}

fn inspect(s: &State, epoch: u8, fence: u8, server: u8) -> Rebuild {
    let run = s.run;
    if run != server {
        return Rebuild::TakeEpoch { epoch, run };
    }
    match s.gate.meta {
        Some(meta) if meta.epoch == epoch && meta.server == run && meta.open => Rebuild::Idle,
        Some(meta) if meta.epoch == epoch && meta.server == run && fence == epoch => Rebuild::Fenced { epoch, run },
        Some(meta) if meta.epoch == epoch && meta.server == run => Rebuild::Wait { epoch },
        Some(meta) if meta.epoch > epoch => Rebuild::Idle,
        _ if fence < epoch => Rebuild::Close { epoch, run, fenced: false },
        _ => Rebuild::TakeEpoch { epoch, run },
    }
}

/// Gate script, and its answer.
fn close(s: &mut State, epoch: u8, run: u8, fenced: bool) -> Rebuild {
    if s.run != run {
        return Rebuild::Idle;
    }
    let found = s.gate.meta.map_or(0, |meta| meta.epoch);
    if found > epoch {
        return Rebuild::Idle;
    }
    if found < epoch {
        let meta = Meta { epoch, server: run, open: false, offered: 0, revision: 0, ended: false };
        s.gate = Gate { meta: Some(meta), ..Gate::default() };
    }
    if fenced { Rebuild::Fenced { epoch, run } } else { Rebuild::Wait { epoch } }
}
