//! The protocol as it is: no state breaks an invariant, and from each one everything can still come to rest.

use crate::invariants::{
    INVARIANTS, QUIET_AFTER_A_REVIVAL, QUIET_AFTER_A_SALE, QUIET_AFTER_A_SECOND_DEATH, QUIET_WITHOUT_A_GATE,
    REBUILT_WITH_A_LIVE_ORDER, REBUILT_WITH_A_REVIVED_ORDER, REOPENED_WITH_A_LIVE_ORDER,
};
use crate::search::{explore, stuck_states};
use crate::system::{System, sale};

/// Makes each system a test.
macro_rules! sound {
    ($check:ident: $($(#[$attribute:meta])* $name:ident = $system:expr;)+) => {
        $(#[test]
        $(#[$attribute])*
        fn $name() {
            $check(&$system);
        })+
    };
}

fn holds(system: &System) {
    let mut goals = vec![QUIET_AFTER_A_SALE];
    if system.may_lose_its_gate() {
        goals.push(REBUILT_WITH_A_LIVE_ORDER);
    }
    if system.budget.ends > 0 {
        goals.push(QUIET_WITHOUT_A_GATE);
    }
    if system.budget.reopenings > 0 {
        goals.push(REOPENED_WITH_A_LIVE_ORDER);
    }
    let dies = system.budget.deadlines + system.budget.cancels > 0;
    if system.budget.payments > 0 && dies {
        goals.push(QUIET_AFTER_A_REVIVAL);
        if system.may_lose_its_gate() {
            goals.push(REBUILT_WITH_A_REVIVED_ORDER);
        }
        if system.budget.closings + system.budget.refunds > 0 {
            goals.push(QUIET_AFTER_A_SECOND_DEATH);
        }
    }
    let explored = explore(system, &INVARIANTS, &goals);
    if let Some(violation) = explored.violation {
        panic!("broken: {}\n{:#?}", violation.broken, violation.steps);
    }
    assert!(explored.missed.is_empty(), "never reached in {} states: {:?}", explored.states, explored.missed);
}

fn comes_to_rest(system: &System) {
    let (states, stuck) = stuck_states(system);
    assert_eq!(stuck, 0, "of {states} states");
}

mod always {
    use super::*;

    sound! { holds:
        sold_out = sale(2, 2);
        cancelled = sale(2, 2).cancels(1);
        restocked = sale(2, 2).restocks(1);
        lost = sale(2, 1).losses(1);
        lost_without_a_sweeper = sale(2, 2).losses(1).sweepers(0);
        lost_with_two_rebuilders = sale(1, 1).losses(1).rebuilders(2).sweepers(0);
        lost_with_prefetch = sale(2, 1).losses(1).prefetching();
        lost_and_cancelled = sale(1, 1).losses(1).cancels(1);
        lost_and_restocked = sale(1, 1).losses(1).restocks(1);
        lost_twice = sale(2, 1).losses(2).sweepers(0);
        lost_and_failed_over = sale(1, 1).losses(1).failovers(1).sweepers(0);
        failed_over = sale(2, 1).failovers(1);
        failed_over_and_cancelled = sale(1, 1).failovers(1).cancels(1);
        flushed = sale(2, 1).flushes(1);
        parked = sale(2, 1).parks(1);
        parked_and_lost = sale(1, 1).parks(1).losses(1);
        parked_and_lost_without_a_sweeper = sale(2, 2).parks(1).losses(1).sweepers(0);
        deposed = sale(2, 1).depositions(1);
        deposed_without_a_sweeper = sale(2, 2).depositions(1).sweepers(0);
        deposed_and_cancelled = sale(1, 1).depositions(1).cancels(1);
        deposed_and_lost = sale(1, 1).depositions(1).losses(1).sweepers(0);
        moved = sale(2, 1).moves(1);
        moved_without_a_sweeper = sale(2, 2).moves(1).sweepers(0);
        moved_and_lost = sale(1, 1).moves(1).losses(1).sweepers(0);
        moved_twice = sale(1, 1).moves(2);
        ended = sale(2, 1).ends(1, 0);
        reopened = sale(1, 1).ends(1, 1);
        reopened_and_replayed = sale(1, 1).ends(1, 1).parks(1);
        ended_and_replayed = sale(2, 1).set_aside().ends(1, 0);
    }
}

/// Orders after they were written. How they came to be is not followed where some are written at the start.
mod life_of_an_order {
    use super::*;

    sound! { holds:
        paid_or_expired = sale(1, 1).deadlines(1).payments(1);
        two_units_cancelled = sale(2, 2).written(1).stock(2).quantities([2, 1, 1]).cancels(1);
        lowered = sale(2, 1).written(1).stock(3).quantities([1, 2, 1]).lowerings(2);
        lowered_and_ended = sale(1, 1).lowerings(1).ends(1, 0);
        revived_among_others = sale(2, 1).written(1).deadlines(1).payments(1);
        bought_again_before_it_was_revived = sale(1, 1).written(1).deadlines(1).payments(1);
        dead_twice_with_two_handlers = sale(1, 0).written(1).deadlines(1).payments(1).closings(1).handlers(2);
        dead_twice_with_two_sweepers =
            sale(1, 0).written(1).deadlines(1).payments(1).closings(1).repeats(1).sweepers(2);
        paid_twice_and_refunded = sale(1, 0).written(1).cancels(1).payments(2).refunds(1).handlers(2);
        dead_twice_and_lost = sale(1, 0).written(1).deadlines(1).payments(1).closings(1).losses(1);
        paid_twice_and_lost = sale(1, 0).written(1).cancels(1).payments(2).losses(1).sweepers(0);
        revived_among_others_and_lost_without_a_sweeper =
            sale(2, 1).written(1).cancels(1).payments(1).losses(1).sweepers(0);
        revived_and_deposed = sale(1, 0).written(1).deadlines(1).payments(1).depositions(1);
        revived_and_moved = sale(1, 0).written(1).deadlines(1).payments(1).moves(1);
        revived_after_the_end = sale(1, 0).written(1).deadlines(1).payments(1).ends(1, 0).retirings(1);
    }
}

/// The same, and more of it.
mod life_of_an_order_in_larger_systems {
    use super::*;

    sound! { holds:
        #[ignore = "minutes"]
        two_units_cancelled_and_lost = sale(2, 1).written(1).stock(3).quantities([2, 1, 1]).cancels(1).losses(1);
        #[ignore = "minutes"]
        lowered_with_two_requests = sale(2, 2).written(1).stock(3).quantities([2, 1, 1]).lowerings(2);
        #[ignore = "minutes"]
        lowered_and_lost = sale(2, 1).stock(2).lowerings(1).losses(1);
        #[ignore = "minutes"]
        lowered_and_revived =
            sale(2, 1).written(1).stock(3).quantities([2, 1, 1]).cancels(1).payments(1).lowerings(1);
        #[ignore = "minutes"]
        lowered_revived_and_lost =
            sale(1, 0).written(1).stock(3).quantities([2, 1, 1]).cancels(1).payments(1).lowerings(2).losses(1);
        #[ignore = "minutes"]
        revived_and_reopened = sale(1, 0).written(1).deadlines(1).payments(1).ends(1, 1).retirings(1);
        #[ignore = "minutes"]
        revived_with_two_requests = sale(1, 2).deadlines(1).payments(1);
        #[ignore = "minutes"]
        revived_among_others_and_lost = sale(2, 1).written(1).cancels(1).payments(1).losses(1);
    }
}

mod always_in_larger_systems {
    use super::*;

    sound! { holds:
        #[ignore = "minutes"]
        three_buyers_of_two_units = sale(3, 3).stock(2);
        #[ignore = "minutes"]
        cancelled_with_two_sweepers = sale(2, 2).cancels(1).sweepers(2);
        #[ignore = "minutes"]
        cancelled_with_three_requests = sale(2, 3).cancels(1);
        #[ignore = "minutes"]
        restocked_with_three_requests = sale(2, 3).restocks(1);
        #[ignore = "minutes"]
        lost_with_two_requests = sale(2, 2).losses(1);
        #[ignore = "minutes"]
        lost_with_two_rebuilders_and_a_sweeper = sale(2, 1).losses(1).rebuilders(2);
        #[ignore = "minutes"]
        lost_and_cancelled_with_two_requests = sale(1, 2).losses(1).cancels(1);
        #[ignore = "minutes"]
        lost_twice_with_a_sweeper = sale(1, 1).losses(2);
        #[ignore = "minutes"]
        lost_twice_with_two_requests = sale(2, 2).losses(2).sweepers(0);
        #[ignore = "minutes"]
        failed_over_with_two_requests = sale(2, 2).failovers(1);
        #[ignore = "minutes"]
        failed_over_and_cancelled_with_two_requests = sale(1, 2).failovers(1).cancels(1);
        #[ignore = "minutes"]
        flushed_with_two_requests = sale(2, 2).flushes(1);
        #[ignore = "minutes"]
        deposed_with_two_requests = sale(2, 2).depositions(1);
        #[ignore = "minutes"]
        deposed_with_two_rebuilders = sale(1, 2).depositions(1).rebuilders(2);
        #[ignore = "minutes"]
        moved_with_two_requests = sale(2, 2).moves(1);
        #[ignore = "minutes"]
        moved_with_two_rebuilders = sale(1, 2).moves(1).rebuilders(2);
        #[ignore = "minutes"]
        moved_and_cancelled = sale(1, 2).moves(1).cancels(1);
        #[ignore = "minutes"]
        reopened_and_cancelled = sale(1, 1).ends(1, 1).cancels(1);
        #[ignore = "minutes"]
        reopened_by_two = sale(1, 1).ends(1, 1).rebuilders(2);
    }
}

mod at_last {
    use super::*;

    sound! { comes_to_rest:
        cancelled = sale(1, 2).cancels(1);
        lost_with_prefetch = sale(2, 1).losses(1).prefetching();
        lost_and_cancelled = sale(1, 1).losses(1).cancels(1);
        deposed = sale(2, 1).depositions(1);
        moved = sale(2, 1).moves(1);
        reopened = sale(1, 1).ends(1, 1);
        revived = sale(1, 0).written(1).deadlines(1).payments(1).closings(1).repeats(1).handlers(2);
        revived_and_lost = sale(1, 0).written(1).deadlines(1).payments(1).losses(1);
        lowered = sale(2, 1).written(1).stock(3).quantities([1, 2, 1]).lowerings(2);
        #[ignore = "minutes"]
        restocked_with_three_requests = sale(2, 3).restocks(1);
        #[ignore = "minutes"]
        lost_with_two_rebuilders_and_a_sweeper = sale(2, 1).losses(1).rebuilders(2);
        #[ignore = "minutes"]
        lost_twice_with_a_sweeper = sale(1, 1).losses(2);
    }
}
