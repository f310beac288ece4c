//! Which steps may come next.

use super::{Step, System};
use crate::defects::Defect;
use crate::state::{CONSUMERS, Message, Order, Rebuild, Request, Row, State, Status, Work, bit, every_order};

impl System {
    pub fn enabled(&self, s: &State, steps: &mut Vec<Step>) {
        self.external(s, steps);
        self.internal(s, steps);
    }

    /// Nothing can be done, unless something comes from outside.
    pub fn is_quiet(&self, s: &State) -> bool {
        // Most states are not, and this tells most of them: each of these has a step that is always possible.
        let busy = !s.net.is_empty()
            || s.settings.is_some()
            || s.start.is_some()
            || s.requests.iter().any(|request| *request != Request::Idle)
            || s.work.iter().any(|work| *work != Work::Idle)
            || s.rebuilds.iter().any(|rebuild| *rebuild != Rebuild::Idle);
        if busy {
            return false;
        }
        let mut steps = vec![];
        self.internal(s, &mut steps);
        steps.is_empty()
    }

    /// What buyers, administrators and mishaps may do.
    fn external(&self, s: &State, steps: &mut Vec<Step>) {
        let budget = &s.budget;
        if budget.requests > 0
            && self.open(s).is_some()
            && let Some(request) = s.requests.iter().position(|request| *request == Request::Idle)
        {
            steps.extend((0..self.users).map(|user| Step::Reserve { request, user }));
        }
        if budget.cancels > 0 {
            for order in every_order().filter(|order| s.row(*order) == Row::Unpaid) {
                steps.push(Step::Cancel(order));
                if self.has(Defect::ReleaseBeforeCommit) {
                    steps.push(Step::CancelAtGate(order));
                }
            }
        }
        if budget.restocks > 0 {
            steps.push(Step::Restock);
        }
        if budget.lowerings > 0 && s.db.sold < s.db.offered() {
            steps.push(Step::Lower);
        }
        self.of_orders(s, steps);
        if budget.ends > 0 && !s.db.ended {
            steps.push(Step::End);
        }
        if budget.reopenings > 0 && s.db.ended {
            steps.push(Step::Reopen);
        }
        if budget.days > 0 && s.gate.meta.is_some_and(|meta| !meta.open) {
            steps.push(Step::ForgetClosed);
        }
        if budget.losses > 0 {
            steps.push(Step::LoseGate);
        }
        if budget.flushes > 0 {
            steps.push(Step::FlushGate);
        }
        if budget.requests > 0
            && s.deposed.is_some()
            && let Some(request) = s.requests.iter().position(|request| *request == Request::Idle)
        {
            steps.extend((0..self.users).map(|user| Step::ReserveAtDeposed { request, user }));
        }
        if budget.parks > 0 && s.parked.is_none() {
            let carries = |work: &Work| matches!(work, Work::Has { message: Message::Order(..), linked: true, .. });
            steps.extend((0..CONSUMERS).filter(|consumer| carries(&s.work[*consumer])).map(Step::Park));
        }
        if s.parked.is_some() {
            steps.push(Step::Replay);
        }
        if budget.moves > 0 && s.deposed.is_none() && self.open(s).is_some() {
            steps.push(Step::Move);
        }
        if budget.failovers > 0 {
            steps.push(if s.replica.is_none() { Step::Replicate } else { Step::FailOver });
        }
        if budget.depositions > 0 && s.deposed.is_none() {
            steps.push(if s.replica.is_none() { Step::Replicate } else { Step::Depose });
        }
        if self.has(Defect::StartResetsGate) && budget.starts > 0 && s.start.is_none() {
            steps.push(Step::ReadAtStart);
        }
    }

    /// What buyers, merchant, provider and time may do to an order.
    fn of_orders(&self, s: &State, steps: &mut Vec<Step>) {
        let budget = &s.budget;
        let unpaid = |order: &Order| s.row(*order) == Row::Unpaid;
        if budget.deadlines > 0 {
            let early = |order: &Order| unpaid(order) && s.db.overdue & bit(*order) == 0;
            steps.extend(every_order().filter(early).map(Step::Deadline));
        }
        if budget.payments > 0 {
            steps.extend(every_order().filter(unpaid).map(Step::Pay));
        }
        if budget.closings > 0 {
            steps.extend(every_order().filter(|order| s.row(*order).is_live()).map(Step::Close));
        }
        for (number, payment) in (0..).zip(&s.payments) {
            if budget.refunds > 0 && (payment.status != Status::Refunded || self.has(Defect::RefundCountsTwice)) {
                steps.push(Step::Refund(number));
            }
            if budget.repeats > 0 && payment.told {
                steps.extend(self.idle_handler(s).map(|handler| Step::Call(handler, number)));
            }
        }
    }

    fn idle_handler(&self, s: &State) -> Option<usize> {
        (CONSUMERS + self.sweepers..s.work.len()).find(|handler| s.work[*handler] == Work::Idle)
    }

    /// What the system does by itself, dying included.
    fn internal(&self, s: &State, steps: &mut Vec<Step>) {
        self.of_requests(s, steps);
        self.of_the_queue(s, steps);
        for worker in 0..s.work.len() {
            self.of_a_worker(s, worker, steps);
        }
        for rebuilder in 0..s.rebuilds.len() {
            self.of_a_rebuilder(s, rebuilder, steps);
        }
        for (number, payment) in (0..).zip(&s.payments) {
            if !payment.told {
                steps.extend(self.idle_handler(s).map(|handler| Step::Call(handler, number)));
            }
        }
        if s.settings.is_some() {
            steps.push(Step::Configure);
        } else if self.open(s).is_some_and(|meta| meta.revision < s.db.revision) {
            steps.push(Step::ReadSettings);
        }
        if s.deposed.is_some() && !self.has(Defect::DeposedNeverTold) {
            steps.push(Step::Tell);
        }
        if s.start.is_some() {
            steps.push(Step::WriteAtStart);
        }
        if s.db.ended && s.db.due != 0 && (s.db.retired || self.has(Defect::ReleaseForgottenByAnOpenGate)) {
            steps.push(Step::ForgetDue);
        }
    }

    fn of_requests(&self, s: &State, steps: &mut Vec<Step>) {
        let early = self.has(Defect::AgeCheckedBeforePublish);
        for (number, request) in s.requests.iter().enumerate() {
            match *request {
                Request::Idle => {}
                Request::Reserved { expired, .. } => {
                    steps.push(Step::GiveUp(number));
                    if !(early && expired) {
                        steps.push(Step::Publish(number));
                    }
                }
                Request::Published { expired, confirmed, .. } => {
                    steps.push(Step::GiveUp(number));
                    if (confirmed || self.has(Defect::ReplyBeforeConfirm)) && (!expired || early) {
                        steps.push(Step::Reply(number));
                    }
                }
            }
        }
    }

    fn of_the_queue(&self, s: &State, steps: &mut Vec<Step>) {
        for sent in 0..s.net.len() {
            if sent == 0 || s.net[sent] != s.net[sent - 1] {
                steps.push(Step::Arrive(sent));
                steps.push(Step::Vanish(sent));
            }
        }
        let ready = s.something_ready();
        let mut single_is_busy = false;
        for consumer in 0..CONSUMERS {
            let unacked = s.work[consumer].unacked().is_some();
            let prefetched = s.prefetched[consumer].is_some();
            single_is_busy |= unacked || prefetched;
            if prefetched {
                if s.work[consumer] == Work::Idle {
                    steps.push(Step::Next(consumer));
                }
            } else if self.prefetch && ready && unacked {
                steps.push(Step::Prefetch(consumer));
            }
        }
        let many = self.has(Defect::CompetingConsumers) || self.has(Defect::EmptyTwiceForBarrier);
        if ready
            && (!single_is_busy || many)
            && let Some(consumer) = (0..CONSUMERS).find(|consumer| s.work[*consumer] == Work::Idle)
        {
            steps.push(Step::Deliver(consumer));
        }
    }

    fn of_a_worker(&self, s: &State, worker: usize, steps: &mut Vec<Step>) {
        let work = &s.work[worker];
        if work.unacked().is_some() {
            steps.push(Step::LoseConnection(worker));
        }
        match *work {
            Work::Idle => {
                if (CONSUMERS..CONSUMERS + self.sweepers).contains(&worker) {
                    self.of_an_idle_sweeper(s, worker, steps);
                }
                return;
            }
            Work::Has { message: Message::Order(..), linked, .. } => {
                let too_early = self.has(Defect::AckBeforeCommit) && linked;
                steps.push(if too_early { Step::Ack(worker) } else { Step::Decide(worker) });
            }
            Work::Has { message: Message::Barrier(_), .. } => steps.push(Step::RaiseFence(worker)),
            Work::Decided { linked: true, .. } | Work::Fenced { linked: true, .. } => steps.push(Step::Ack(worker)),
            Work::Decided { .. } => steps.push(Step::MarkWritten(worker)),
            Work::Released { .. } => steps.push(Step::ClearDue(worker)),
            // Its link is gone; the fence stands.
            Work::Fenced { .. } => {}
            Work::Ending { .. } => steps.push(Step::Retire(worker)),
            Work::Retired { .. } => steps.push(Step::NoteRetired(worker)),
            Work::Raising { .. } => steps.push(Step::Raise(worker)),
            Work::Expiring { .. } => steps.push(Step::Expire(worker)),
            Work::Received { .. } => steps.push(Step::Receive(worker)),
            Work::Late { .. } => {
                steps.push(Step::Readmit(worker));
                if s.deposed.is_some() {
                    steps.push(Step::ReadmitAtDeposed(worker));
                }
            }
            Work::Admitted { .. } | Work::Refused { .. } | Work::Gateless { .. } => steps.push(Step::Settle(worker)),
            Work::Settled { .. } => steps.push(Step::TellOfPayment(worker)),
            Work::Answering { .. } => steps.push(Step::Answer(worker)),
        }
        steps.push(Step::Crash(worker));
    }

    fn of_an_idle_sweeper(&self, s: &State, sweeper: usize, steps: &mut Vec<Step>) {
        if self.open(s).is_some() {
            let in_flight = every_order().filter(|order| s.gate.in_flight & bit(*order) != 0);
            steps.extend(in_flight.map(|order| Step::Sweep(sweeper, order)));
            if s.gate.late != 0 {
                steps.extend(s.late_entries().map(|entry| Step::SweepLate(sweeper, entry)));
            }
        }
        if s.db.ended && self.open(s).is_some() && s.budget.retirings > 0 {
            steps.push(Step::SeeEnd(sweeper));
        }
        if s.db.withheld > 0 && self.wanted(s) > s.db.offered() {
            steps.push(Step::SeeTaken(sweeper));
        }
        let overdue = |order: &Order| s.db.overdue & bit(*order) != 0 && s.row(*order) == Row::Unpaid;
        steps.extend(every_order().filter(overdue).map(|order| Step::SeeDeadline(sweeper, order)));
        let due = every_order().filter(|order| s.db.due & bit(*order) != 0);
        steps.extend(due.map(|order| Step::Redo(sweeper, order)));
    }

    fn of_a_rebuilder(&self, s: &State, rebuilder: usize, steps: &mut Vec<Step>) {
        let rebuild = s.rebuilds[rebuilder];
        if rebuild == Rebuild::Idle {
            // A sale that is over needs none. A start of one would begin epoch after epoch.
            // Unless a late payment asks for one.
            if s.db.ended && (s.db.retired || s.gate.meta.is_none() && !s.late_payment_waits()) {
                return;
            }
            let gate = self.valid(s);
            let amiss = s.db.fence < s.db.epoch || gate.is_none_or(|meta| !meta.open || meta.epoch != s.db.epoch);
            let lost_again = gate.is_none_or(|meta| meta.epoch != s.db.epoch);
            let fenced = s.db.fence == s.db.epoch;
            if amiss && (lost_again || fenced || !s.barrier_about(s.db.epoch)) {
                steps.push(Step::BeginRebuild(rebuilder));
            }
            return;
        }
        let ready = match rebuild {
            Rebuild::Wait { .. } if self.has(Defect::EmptyTwiceForBarrier) => !s.something_ready(),
            Rebuild::Sampled { .. } => {
                let held_since = |work: &Work| matches!(work, Work::Has { old: true, linked: true, .. });
                !s.something_ready() && !s.work.iter().any(held_since)
            }
            Rebuild::Read { epoch, .. } => s.db.fence >= epoch,
            _ => true,
        };
        if ready {
            steps.push(Step::Rebuild(rebuilder));
        }
        steps.push(Step::CrashRebuild(rebuilder));
    }
}
