//! What each rule is for: without it, so many steps are enough to break an invariant. docs/protocol.md lists them.

use crate::defects::Defect::{self, *};
use crate::invariants::{
    Claim, GATE_COVERS_LIVE_ORDERS, GATE_NEVER_OVER_OFFERS, NEVER_OVERSOLD, NO_MONEY_LOST, NO_PROMISE_LOST,
    NO_PROMISE_TURNED_DOWN, NO_SALE_LOSES_ITS_GATE, PAID_BY_ONE_PAYMENT, QUIET_GATE_EQUALS_DATABASE,
    RETIRED_GATE_OWED_NOTHING, UNITS_COUNTED_ONCE,
};
use crate::search::explore;
use crate::system::{System, sale};

/// Makes each defect a test: the system in which it shows, what it breaks, and the fewest steps to it.
macro_rules! mutants {
    ($($name:ident: $defect:ident, $system:expr, breaks $invariant:ident after $steps:literal;)+) => {
        $(#[test]
        fn $name() {
            breaks($defect, $system, $invariant, $steps);
        })+

        #[test]
        fn the_document_has_a_line_for_each() {
            $(documented(stringify!($name), $invariant, $steps);)+
        }
    };
}

/// docs/protocol.md says of each rule what breaks without it.
fn documented(name: &str, Claim { name: broken, .. }: Claim, steps: usize) {
    let (start, end) = (format!("| `{name}` | "), format!(" | {broken} | {steps} |"));
    let mut lines = include_str!("../../docs/protocol.md").lines();
    assert!(lines.any(|line| line.starts_with(&start) && line.ends_with(&end)), "no line {start}...{end}");
}

fn breaks(defect: Defect, sound: System, invariant: Claim, steps: usize) {
    let system = System { defect: Some(defect), ..sound };
    let found = explore(&system, &[invariant], &[]).violation.expect("a counterexample");
    assert_eq!(found.steps.len(), steps, "{:#?}", found.steps);
}

mutants! {
    release_when_the_publish_timed_out: ReleaseOnTimeout, sale(3, 3).stock(2), breaks GATE_COVERS_LIVE_ORDERS after 5;
    reply_before_the_confirm: ReplyBeforeConfirm, sale(3, 3).stock(2), breaks NO_PROMISE_LOST after 3;
    in_flight_entry_removed_before_the_confirm:
        InFlightClearedBeforeConfirm, sale(3, 3).stock(2), breaks NO_PROMISE_LOST after 3;
    ack_before_the_commit: AckBeforeCommit, sale(3, 3).stock(2), breaks NO_PROMISE_LOST after 6;
    start_writes_the_gate_during_the_sale:
        StartResetsGate, sale(3, 3).stock(2), breaks GATE_COVERS_LIVE_ORDERS after 5;
    release_by_user: ReleaseByUser, sale(2, 2).sweepers(2).cancels(1), breaks GATE_COVERS_LIVE_ORDERS after 13;
    due_cleared_before_the_release:
        DueClearedBeforeRelease, sale(2, 2).sweepers(2).cancels(1), breaks QUIET_GATE_EQUALS_DATABASE after 9;
    release_before_the_cancel_is_committed:
        ReleaseBeforeCommit, sale(2, 2).sweepers(2).cancels(1), breaks GATE_COVERS_LIVE_ORDERS after 4;
    any_duplicate_taken_for_success:
        AnyDuplicateIsSuccess, sale(2, 2).sweepers(2).cancels(1), breaks NO_PROMISE_LOST after 13;
    restock_at_the_gate_first: RestockGateFirst, sale(2, 3).restocks(1), breaks GATE_NEVER_OVER_OFFERS after 1;
    late_accepted_unconditionally:
        LateAcceptedUnconditionally, sale(2, 2).losses(1), breaks NEVER_OVERSOLD after 20;
    late_accepted: LateAccepted, sale(2, 2).losses(1), breaks GATE_COVERS_LIVE_ORDERS after 16;
    marking_an_order_written_restores_a_reservation:
        MarkingWrittenRestoresReservation, sale(2, 2).sweepers(2).cancels(1), breaks GATE_NEVER_OVER_OFFERS after 8;
    rebuild_without_the_wait: RebuildWithoutWaiting, sale(2, 2).losses(1), breaks NO_PROMISE_TURNED_DOWN after 15;
    age_checked_before_the_publish:
        AgeCheckedBeforePublish, sale(2, 2).losses(1), breaks NO_PROMISE_TURNED_DOWN after 15;
    competing_consumers: CompetingConsumers, sale(2, 2).losses(1), breaks NO_PROMISE_TURNED_DOWN after 15;
    queue_empty_twice_instead_of_a_barrier:
        EmptyTwiceForBarrier, sale(2, 2).losses(1), breaks NO_PROMISE_TURNED_DOWN after 17;
    redelivered_barrier_trusted:
        RedeliveredBarrierTrusted, sale(2, 1).losses(1).prefetching(), breaks NO_PROMISE_TURNED_DOWN after 19;
    live_orders_read_before_the_fence:
        LiveReadBeforeFence, sale(2, 2).losses(1), breaks GATE_COVERS_LIVE_ORDERS after 13;
    fence_as_a_flag:
        FenceIsFlag, sale(1, 2).losses(2).sweepers(0), breaks NO_PROMISE_TURNED_DOWN after 31;
    install_over_an_open_gate:
        InstallOverOpenGate, sale(1, 1).losses(1).rebuilders(2).sweepers(0), breaks GATE_COVERS_LIVE_ORDERS after 23;
    release_counted_as_done_on_a_closed_gate:
        ReleaseDoneOnClosedGate, sale(1, 1).losses(1).cancels(1), breaks QUIET_GATE_EQUALS_DATABASE after 24;
    no_server_identity: NoServerIdentity, sale(2, 2).failovers(1), breaks GATE_COVERS_LIVE_ORDERS after 5;
    deposed_gate_never_told: DeposedNeverTold, sale(2, 2).moves(1), breaks NO_PROMISE_TURNED_DOWN after 16;
    deposed_master_never_told: DeposedNeverTold, sale(2, 2).depositions(1), breaks NO_PROMISE_TURNED_DOWN after 17;
    replay_past_the_gate: ReplayPastTheGate, sale(1, 1).losses(1).parks(1), breaks NO_PROMISE_TURNED_DOWN after 19;
    retired_with_a_purchase_in_flight:
        RetireInFlight, sale(1, 1).ends(1, 1), breaks NO_PROMISE_TURNED_DOWN after 12;
    retired_with_a_promise_that_is_not_written:
        RetireInFlight, sale(1, 1).ends(1, 0), breaks RETIRED_GATE_OWED_NOTHING after 10;
    retired_by_the_row_alone: RetireByTheRowAlone, sale(1, 1).ends(1, 1), breaks NO_SALE_LOSES_ITS_GATE after 4;
    retirement_noted_blindly: RetirementNotedBlindly, sale(1, 1).ends(1, 1), breaks RETIRED_GATE_OWED_NOTHING after 23;
    release_forgotten_by_an_open_gate:
        ReleaseForgottenByAnOpenGate, sale(1, 1).ends(1, 1).cancels(1), breaks QUIET_GATE_EQUALS_DATABASE after 11;
    any_gate_gone_taken_for_a_retired_one:
        AnyGateGoneIsRetired, sale(1, 1).losses(1), breaks NO_PROMISE_TURNED_DOWN after 10;
    opened_without_another_look:
        OpenedWithoutAnotherLook, sale(1, 1).ends(1, 1).rebuilders(2), breaks NO_PROMISE_TURNED_DOWN after 28;
    replay_leaves_it_retired:
        ReplayLeavesItRetired, sale(1, 1).ends(1, 1).parks(1).losses(1), breaks NO_PROMISE_TURNED_DOWN after 27;
    repeat_answered_from_an_unconfirmed_reservation:
        RepeatAnsweredUnconfirmed, sale(2, 2).losses(1), breaks NO_PROMISE_LOST after 2;
    two_units_released_as_one:
        QuantityReleasedAsOne, sale(1, 0).written(1).stock(2).quantities([2, 1, 1]).cancels(1),
        breaks QUIET_GATE_EQUALS_DATABASE after 4;
    extra_units_not_loaded:
        ExtraNotLoaded, sale(2, 1).written(1).stock(2).quantities([2, 1, 1]).losses(1),
        breaks GATE_NEVER_OVER_OFFERS after 14;
    two_units_granted_when_one_remains:
        GrantedInPart, sale(1, 1).quantities([2, 1, 1]), breaks GATE_NEVER_OVER_OFFERS after 1;
    enforced_stock_lowered: EnforcedStockLowered, sale(1, 1).lowerings(1), breaks NO_PROMISE_TURNED_DOWN after 7;
    withheld_units_refused_to_a_purchase_in_flight:
        WithheldIsEnforced, sale(1, 1).lowerings(1), breaks NO_PROMISE_TURNED_DOWN after 7;
    offer_raised_by_the_gate_alone:
        RaisedByTheGateAlone, sale(1, 1).lowerings(1).ends(1, 0), breaks QUIET_GATE_EQUALS_DATABASE after 12;
    expired_whatever_its_status:
        ExpiryWithoutStatus, sale(1, 0).written(1).deadlines(1).payments(1), breaks PAID_BY_ONE_PAYMENT after 6;
    expired_by_two_and_counted_twice:
        ExpiryCountedTwice, sale(2, 0).written(2).stock(2).deadlines(1).sweepers(2),
        breaks UNITS_COUNTED_ONCE after 5;
    released_before_the_expiry_is_committed:
        ExpiryReleasedBeforeCommit, sale(1, 0).written(1).deadlines(1), breaks GATE_COVERS_LIVE_ORDERS after 3;
    callback_answered_before_the_commit:
        AnsweredBeforeCommit, sale(1, 0).written(1).payments(1), breaks NO_MONEY_LOST after 3;
    event_stored_before_its_work: EventStoredFirst, sale(1, 0).written(1).payments(1), breaks NO_MONEY_LOST after 5;
    second_payment_taken_for_a_repeat:
        SecondPaymentTakenForARepeat, sale(1, 0).written(1).payments(2), breaks NO_MONEY_LOST after 8;
    second_payment_pays_too:
        SecondPaymentPaysToo, sale(1, 0).written(1).payments(2), breaks PAID_BY_ONE_PAYMENT after 7;
    cancelled_without_its_refund:
        ClosedWithItsMoney, sale(1, 0).written(1).payments(1).closings(1), breaks PAID_BY_ONE_PAYMENT after 4;
    refund_counted_twice:
        RefundCountsTwice, sale(2, 0).written(2).stock(2).payments(1).closings(1).refunds(1),
        breaks UNITS_COUNTED_ONCE after 3;
    revived_in_the_database_only:
        RevivedInTheDatabaseOnly, sale(2, 1).written(1).cancels(1).payments(1),
        breaks GATE_COVERS_LIVE_ORDERS after 4;
    revived_under_the_order_alone:
        RevivedUnderTheOrderAlone, sale(1, 0).written(1).cancels(1).payments(1),
        breaks GATE_COVERS_LIVE_ORDERS after 8;
    revived_once_its_release_was_not_due:
        RevivedOnceItWasReleased, sale(1, 0).written(1).cancels(1).payments(1).sweepers(2),
        breaks GATE_COVERS_LIVE_ORDERS after 11;
    revived_with_its_release_due:
        RevivedWithTheReleaseDue, sale(1, 0).written(1).cancels(1).payments(1),
        breaks GATE_COVERS_LIVE_ORDERS after 8;
    revived_past_the_fence:
        RevivalIgnoresTheFence, sale(1, 0).written(1).cancels(1).payments(1).losses(1),
        breaks GATE_COVERS_LIVE_ORDERS after 19;
    late_payment_released_because_its_order_is_dead:
        SweeperReleasesLatePayments, sale(1, 0).written(1).cancels(1).payments(1),
        breaks GATE_COVERS_LIVE_ORDERS after 9;
    late_payment_released_when_its_commit_is_unknown:
        LateReleasedWhenItsCommitIsUnknown, sale(1, 0).written(1).cancels(1).payments(1),
        breaks GATE_COVERS_LIVE_ORDERS after 7;
    one_entry_for_all_calls_of_a_payment:
        EntryOfItsPaymentAlone, sale(1, 0).written(1).deadlines(1).payments(1).closings(1).handlers(2),
        breaks QUIET_GATE_EQUALS_DATABASE after 18;
    due_cleared_for_another_life:
        DueClearedForAnotherLife, sale(1, 0).written(1).cancels(1).payments(1).closings(1),
        breaks QUIET_GATE_EQUALS_DATABASE after 12;
    revived_order_loaded_without_its_payment:
        LoadedWithoutItsPayment, sale(1, 0).written(1).cancels(1).payments(1).losses(1),
        breaks GATE_COVERS_LIVE_ORDERS after 19;
    replayed_without_a_look_at_what_remains:
        ReplayWithoutALook, sale(2, 1).set_aside().ends(1, 0), breaks NO_PROMISE_TURNED_DOWN after 12;
    lost_gate_taken_for_a_retired_one:
        LostGateTakenForRetired, sale(2, 1).written(1).cancels(1).payments(1).losses(1),
        breaks NO_PROMISE_TURNED_DOWN after 15;
}
