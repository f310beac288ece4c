use std::sync::Arc;
use std::time::{Duration, Instant};

use seckill::config::Backend;
use seckill::model::{
    Click, Denial, Network, ProductId, Purchase, Quantity, Revision, SaleSettings, SaleState, Terms, Timestamp,
};
use seckill::stock::{Admission, Answer, GateError, GateView, Holding, RATE_WINDOW, StockGate};
use tokio_util::sync::CancellationToken;

use crate::support::{Stores, eventually};
use crate::{on_both_backends, product, purchase, user};

pub const EPOCH: i64 = 1;
const SOLD_OUT: Answer = Answer::Denied(Denial::SoldOut);

pub fn now_and(seconds: i64) -> Timestamp {
    Timestamp::from_unix_ms(Timestamp::now().unix_ms() + seconds * 1000).unwrap()
}

pub fn settings(stock: i64) -> SaleSettings {
    let (payment_window, max_per_order) = (900.try_into().ok(), Quantity::ONE);
    let terms = Terms { price_cents: 1_990, payment_window, max_per_order, max_per_address: None };
    SaleSettings { revision: 1, stock, starts_at: now_and(-60), ends_at: None, paused: false, terms: Some(terms) }
}

pub fn with_address_limit(settings: SaleSettings, limit: i64) -> SaleSettings {
    let terms = settings.terms.map(|terms| Terms { max_per_address: limit.try_into().ok(), ..terms });
    SaleSettings { terms, ..settings }
}

pub fn network(address: &str) -> Network {
    Network::of(address.parse().unwrap())
}

pub fn gate(stores: &Stores) -> StockGate {
    match stores.config().backend {
        Backend::Embedded => StockGate::memory(),
        Backend::Distributed => StockGate::redis(&stores.config().redis, 2).unwrap(),
    }
}

/// The server that keeps a product's gate.
pub async fn home(gate: &StockGate, id: ProductId) -> Result<String, GateError> {
    let servers = gate.servers().await?;
    gate.server_of(&servers, id).await.ok_or(GateError::Lost)
}

pub async fn open(stores: &Stores, id: i64, settings: SaleSettings) -> (StockGate, ProductId) {
    let gate = gate(stores);
    let server_id = home(&gate, product(id)).await.unwrap();
    gate.open_new(product(id), &server_id, EPOCH, &settings).await.unwrap();
    (gate, product(id))
}

pub async fn answers(gate: &StockGate, id: ProductId, purchases: &[Purchase]) -> Vec<Answer> {
    let clicks: Vec<Click> = purchases.iter().map(|purchase| (*purchase).into()).collect();
    answers_to(gate, id, &clicks).await
}

pub async fn answers_to(gate: &StockGate, id: ProductId, clicks: &[Click]) -> Vec<Answer> {
    match gate.reserve(id, clicks).await.unwrap() {
        Admission::Open { epoch: EPOCH, answers, .. } => answers,
        other => panic!("{other:?}"),
    }
}

/// A gate whose watch goes on until it is cancelled.
fn watched(gate: StockGate) -> (Arc<StockGate>, CancellationToken) {
    let (gate, stop) = (Arc::new(gate), CancellationToken::new());
    let (watching, until) = (gate.clone(), stop.clone());
    tokio::spawn(async move { watching.watch(until).await });
    (gate, stop)
}

pub async fn view(gate: &StockGate, id: ProductId) -> Option<GateView> {
    gate.view(&[id]).await.unwrap()[0]
}

on_both_backends! {
    /// Guards against: limit, dedupe and stock in steps of their own (peers 6).
    async fn units_are_taken_in_order_until_none_remains(stores) {
        let (gate, id) = open(stores, 1, settings(2)).await;
        let purchases = [purchase(1), purchase(2), purchase(3)];
        assert_eq!(answers(&gate, id, &purchases).await, [Answer::Reserved, Answer::Reserved, SOLD_OUT]);
        let state = SaleState::SoldOut;
        let seen = GateView { remaining: 0, state, epoch: EPOCH, revision: 1, stock: 2, taken: 2, in_flight: 2, terms: settings(2).terms };
        assert_eq!(view(&gate, id).await, Some(seen));
    }

    async fn repeating_a_step_takes_nothing_twice(stores) {
        let (gate, id) = open(stores, 1, settings(5)).await;
        let mine = purchase(1);
        for _ in 0..3 {
            assert_eq!(answers(&gate, id, &[mine, mine]).await, [Answer::Reserved, Answer::Reserved]);
        }
        assert_eq!(view(&gate, id).await.unwrap().remaining, 4);
    }

    async fn a_buyer_who_holds_a_unit_is_told_which_before_anything_else(stores) {
        let (gate, id) = open(stores, 1, settings(1)).await;
        let mine = purchase(1);
        answers(&gate, id, &[mine]).await;
        let in_flight = Answer::InFlight { order_id: mine.order_id, quantity: Quantity::ONE, revision: Revision::FIRST };
        assert_eq!(answers(&gate, id, &[purchase(1)]).await, [in_flight], "sold out and too soon, too");
        gate.mark_written(id, &[mine]).await.unwrap();
        let written = Answer::Denied(Denial::AlreadyPurchased(mine.order_id));
        assert_eq!(answers(&gate, id, &[purchase(1)]).await, [written]);
    }

    /// Guards against: one address takes a whole sale. A repeat counts once, and units that were given back stay counted.
    async fn buyers_of_an_address_get_its_share_and_no_more(stores) {
        let (gate, id) = open(stores, 1, with_address_limit(settings(9), 2)).await;
        let from = |user, address: &str| Click { purchase: purchase(user), from: Some(network(address)) };
        let (refused, mine) = (Answer::Denied(Denial::AddressLimit(0)), from(1, "192.0.2.1"));
        let clicks = [mine, mine, from(2, "192.0.2.1"), from(3, "192.0.2.1"), from(4, "192.0.2.2"), purchase(5).into()];
        let expected = [Answer::Reserved, Answer::Reserved, Answer::Reserved, refused, Answer::Reserved, Answer::Reserved];
        assert_eq!(answers_to(&gate, id, &clicks).await, expected);
        let v6 = [from(6, "2001:db8::1"), from(7, "2001:db8::2:1"), from(8, "2001:db8::3:1"), from(9, "2001:db8:0:1::1")];
        assert_eq!(answers_to(&gate, id, &v6).await, [Answer::Reserved, Answer::Reserved, refused, Answer::Reserved]);
        assert_eq!(view(&gate, id).await.unwrap().remaining, 2);

        gate.release(id, EPOCH, &[mine.purchase]).await.unwrap();
        assert_eq!(answers_to(&gate, id, &[from(10, "192.0.2.1")]).await, [refused]);
        let raised = SaleSettings { revision: 2, ..with_address_limit(settings(9), 3) };
        gate.configure(id, &raised).await.unwrap();
        assert_eq!(answers_to(&gate, id, &[from(11, "192.0.2.1"), from(12, "192.0.2.1")]).await, [Answer::Reserved, refused]);
        let unlimited = SaleSettings { revision: 3, ..settings(9) };
        gate.configure(id, &unlimited).await.unwrap();
        let many = [from(13, "192.0.2.1"), from(14, "192.0.2.1"), from(15, "192.0.2.1")];
        assert_eq!(answers_to(&gate, id, &many).await, [Answer::Reserved, Answer::Reserved, SOLD_OUT]);
    }

    async fn who_asks_for_more_than_is_left_of_a_share_is_told_how_much_that_is(stores) {
        let terms = settings(9).terms.map(|terms| Terms { max_per_order: 3.try_into().unwrap(), ..terms });
        let (gate, id) = open(stores, 1, with_address_limit(SaleSettings { terms, ..settings(9) }, 4)).await;
        let from = |user, units: i64| {
            let purchase = Purchase { quantity: units.try_into().unwrap(), ..purchase(user) };
            Click { purchase, from: Some(network("192.0.2.1")) }
        };
        let answers = answers_to(&gate, id, &[from(1, 3), from(2, 2), from(3, 1), from(4, 1)]).await;
        let refused = |left| Answer::Denied(Denial::AddressLimit(left));
        assert_eq!(answers, [Answer::Reserved, refused(1), Answer::Reserved, refused(0)]);
    }

    /// Guards against: a program that knows no limit has opened the gate, or changed it, and is gone.
    async fn a_gate_takes_over_terms_of_its_revision_that_an_older_program_did_not_know(stores) {
        let (gate, id) = open(stores, 1, settings(9)).await;
        let limited = with_address_limit(settings(9), 1);
        if let StockGate::Redis(_) = gate {
            gate.configure(id, &limited).await.unwrap();
            assert_eq!(view(&gate, id).await.unwrap().terms, limited.terms);
            let from = |user| Click { purchase: purchase(user), from: Some(network("192.0.2.1")) };
            let answers = answers_to(&gate, id, &[from(1), from(2)]).await;
            assert_eq!(answers, [Answer::Reserved, Answer::Denied(Denial::AddressLimit(0))]);
        }
    }

    /// Guards against: a share for each five hundred clicks, which Redis takes in a step.
    async fn a_share_is_one_however_many_click_at_once(stores) {
        let (gate, id) = open(stores, 1, with_address_limit(settings(2_000), 700)).await;
        let clicks: Vec<Click> = (1..=1_200).map(|user| Click { purchase: purchase(user), from: Some(network("192.0.2.1")) }).collect();
        let answers = answers_to(&gate, id, &clicks).await;
        assert_eq!(answers.iter().filter(|answer| **answer == Answer::Reserved).count(), 700);
        assert!(answers[700..].iter().all(|answer| *answer == Answer::Denied(Denial::AddressLimit(0))));
    }

    /// Guards against: a product that has the id of one that is gone, such as after a restored backup, and its counts.
    async fn a_sale_that_is_opened_for_the_first_time_has_counted_nobody(stores) {
        let from = |user| Click { purchase: purchase(user), from: Some(network("192.0.2.1")) };
        let limited = with_address_limit(settings(9), 1);
        let (gate, id) = open(stores, 1, limited).await;
        assert_eq!(answers_to(&gate, id, &[from(1), from(2)]).await, [Answer::Reserved, Answer::Denied(Denial::AddressLimit(0))]);
        let again = self::gate(stores);
        if let StockGate::Redis(_) = gate {
            let server_id = home(&again, id).await.unwrap();
            again.open_new(id, &server_id, EPOCH + 1, &limited).await.unwrap();
            assert!(matches!(again.reserve(id, &[from(2)]).await, Ok(Admission::Open { answers, .. }) if answers == [Answer::Reserved]));
        }
    }

    /// Guards against: another gate of the same backend that does not know of the limit yet, as of another instance.
    async fn the_share_of_an_address_holds_at_every_instance(stores) {
        let (gate, id) = open(stores, 1, with_address_limit(settings(9), 1)).await;
        let from = |user| Click { purchase: purchase(user), from: Some(network("192.0.2.1")) };
        assert_eq!(answers_to(&gate, id, &[from(1)]).await, [Answer::Reserved]);
        if let StockGate::Redis(_) = gate {
            let other = self::gate(stores);
            assert_eq!(answers_to(&other, id, &[from(2)]).await, [Answer::Denied(Denial::AddressLimit(0))]);
        }
        assert_eq!(answers_to(&gate, id, &[from(3)]).await, [Answer::Denied(Denial::AddressLimit(0))]);
    }

    async fn the_window_and_the_pause_come_first(stores) {
        let open_sale = settings(1);
        let (gate, id) = open(stores, 1, open_sale).await;
        answers(&gate, id, &[purchase(1)]).await;
        let later = now_and(60);
        for (revision, changed, expected, state) in [
            (2, SaleSettings { starts_at: later, ..open_sale }, Admission::Denied(Denial::NotStarted(later)), SaleState::Upcoming),
            (3, SaleSettings { ends_at: Some(now_and(-1)), paused: true, ..open_sale }, Admission::Denied(Denial::Ended), SaleState::Ended),
            (4, SaleSettings { paused: true, ..open_sale }, Admission::Denied(Denial::Paused), SaleState::Paused),
        ] {
            gate.configure(id, &SaleSettings { revision, ..changed }).await.unwrap();
            assert_eq!(gate.reserve(id, &[purchase(1).into(), purchase(2).into()]).await, Ok(expected));
            assert_eq!(view(&gate, id).await.unwrap().state, state);
        }
    }

    async fn what_denies_all_strangers_needs_no_step(stores) {
        let (gate, id) = open(stores, 1, settings(1)).await;
        let (gate, stop) = watched(gate);
        let mine = purchase(1);
        assert_eq!(gate.denial(id, mine.user_id), None, "there is a unit");
        answers(&gate, id, &[mine, purchase(2)]).await;
        let too_soon = |user_id| matches!(gate.denial(id, user(user_id)), Some(Denial::RateLimited(_)));
        eventually("it is known to be sold out", || async { too_soon(2) }).await;
        eventually("a stranger is told", || async { gate.denial(id, user(3)) == Some(Denial::SoldOut) }).await;
        eventually("the rate is limited as at the gate", || async { too_soon(3) }).await;
        assert_eq!(gate.denial(id, mine.user_id), None, "who holds a unit is told which");
        assert_eq!(gate.denial(product(2), user(3)), None, "another sale");

        gate.release(id, EPOCH, &[mine]).await.unwrap();
        assert_eq!(gate.denial(id, user(4)), None, "a unit is back");
        assert_eq!(answers(&gate, id, &[purchase(5)]).await, [Answer::Reserved]);

        let later = now_and(60);
        for (revision, changed, denial) in [
            (2, SaleSettings { starts_at: later, ..settings(1) }, Denial::NotStarted(later)),
            (3, SaleSettings { ends_at: Some(now_and(-1)), paused: true, ..settings(1) }, Denial::Ended),
            (4, SaleSettings { paused: true, ..settings(1) }, Denial::Paused),
        ] {
            gate.configure(id, &SaleSettings { revision, ..changed }).await.unwrap();
            gate.reserve(id, &[purchase(1).into()]).await.unwrap();
            eventually(&format!("{denial:?}"), || async { gate.denial(id, mine.user_id) == Some(denial) }).await;
        }
        gate.configure(id, &SaleSettings { revision: 5, ..settings(2) }).await.unwrap();
        assert_eq!(gate.denial(id, mine.user_id), None, "open again, with one more unit");
        stop.cancel();
    }

    /// Nothing that a gate counts changes when its time has come, nor when its units are taken.
    async fn a_sale_that_denied_early_clicks_is_known_to_be_sold_out_too(stores) {
        let soon = Timestamp::from_unix_ms(Timestamp::now().unix_ms() + 400).unwrap();
        let (gate, id) = open(stores, 1, SaleSettings { starts_at: soon, ..settings(1) }).await;
        let (gate, stop) = watched(gate);
        assert_eq!(gate.reserve(id, &[purchase(1).into()]).await, Ok(Admission::Denied(Denial::NotStarted(soon))));
        let refused = |refusal| async move { refusal };
        eventually("early clicks are refused", || refused(gate.denial(id, user(1)) == Some(Denial::NotStarted(soon)))).await;
        eventually("a unit is sold", || async {
            matches!(gate.reserve(id, &[purchase(1).into()]).await, Ok(Admission::Open { .. }))
        })
        .await;
        assert!(Timestamp::now() >= soon, "not too early");
        answers(&gate, id, &[purchase(2)]).await;
        eventually("strangers are refused", || refused(gate.denial(id, user(3)) == Some(Denial::SoldOut))).await;
        assert_eq!(gate.denial(id, user(1)), None, "who holds the unit is told which");
        stop.cancel();
    }

    async fn only_newer_sale_settings_are_taken_over(stores) {
        let (gate, id) = open(stores, 1, settings(5)).await;
        gate.configure(id, &SaleSettings { revision: 3, stock: 9, ..settings(0) }).await.unwrap();
        for revision in [1, 2, 3] {
            gate.configure(id, &SaleSettings { revision, stock: 1, ..settings(0) }).await.unwrap();
        }
        assert_eq!(view(&gate, id).await.unwrap().remaining, 9);
    }

    /// Guards against: a release that gives a unit back each time it runs (peers 5).
    async fn a_release_gives_back_only_what_is_still_its_own(stores) {
        let (gate, id) = open(stores, 1, settings(2)).await;
        let (first, other) = (purchase(1), purchase(2));
        answers(&gate, id, &[first, other]).await;
        let strangers = Purchase { user_id: user(1), ..purchase(1) };
        gate.release(id, EPOCH, &[strangers]).await.unwrap();
        assert_eq!(view(&gate, id).await.unwrap().remaining, 0, "another order's release");
        for _ in 0..3 {
            gate.release(id, EPOCH, &[first]).await.unwrap();
        }
        assert_eq!(view(&gate, id).await.unwrap().remaining, 1, "released once however often it is asked");
        assert!(gate.release(id, EPOCH + 1, &[other]).await.is_err(), "another epoch's order");
        assert_eq!(view(&gate, id).await.unwrap().remaining, 1);
    }

    async fn a_released_buyer_may_buy_again_and_an_old_release_does_not_take_it_away(stores) {
        let (gate, id) = open(stores, 1, settings(1)).await;
        let first = purchase(1);
        answers(&gate, id, &[first]).await;
        gate.release(id, EPOCH, &[first]).await.unwrap();
        let second = purchase(1);
        eventually("the rate limit is over", || async { answers(&gate, id, &[second]).await == [Answer::Reserved] }).await;
        gate.release(id, EPOCH, &[first]).await.unwrap();
        assert_eq!(gate.held_by(user(1), &[id]).await.unwrap(), [Some(Holding::Order { id: second.order_id, quantity: Quantity::ONE })]);
    }

    async fn marking_an_order_written_never_brings_a_reservation_back(stores) {
        let (gate, id) = open(stores, 1, settings(1)).await;
        let mine = purchase(1);
        answers(&gate, id, &[mine]).await;
        gate.release(id, EPOCH, &[mine]).await.unwrap();
        gate.mark_written(id, &[mine]).await.unwrap();
        assert_eq!(gate.held_by(user(1), &[id]).await.unwrap(), [Some(Holding::Nothing)]);
        assert_eq!(view(&gate, id).await.unwrap().remaining, 1);
    }

    async fn the_rate_limit_counts_tries_that_were_not_refused_for_it(stores) {
        let (gate, id) = open(stores, 1, settings(0)).await;
        assert_eq!(answers(&gate, id, &[purchase(1)]).await, [SOLD_OUT]);
        let Answer::Denied(Denial::RateLimited(wait)) = answers(&gate, id, &[purchase(1)]).await[0] else { panic!("not limited") };
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(answers(&gate, id, &[purchase(2)]).await, [SOLD_OUT], "another user's try");
        tokio::time::sleep(wait + Duration::from_millis(20)).await;
        assert_eq!(answers(&gate, id, &[purchase(1)]).await, [SOLD_OUT], "the refused try did not extend the wait");
    }

    async fn a_try_that_got_a_unit_counts_once_the_unit_is_given_back(stores) {
        let (gate, id) = open(stores, 1, settings(2)).await;
        let (drawn, mine) = (Instant::now(), purchase(1));
        assert_eq!(answers(&gate, id, &[mine]).await, [Answer::Reserved]);
        gate.release(id, EPOCH, &[mine]).await.unwrap();
        let again = answers(&gate, id, &[purchase(1)]).await[0];
        // Anything else would be right on a machine that stood still for a second.
        if drawn.elapsed() < RATE_WINDOW {
            let Answer::Denied(Denial::RateLimited(wait)) = again else { panic!("{again:?}") };
            tokio::time::sleep(wait + Duration::from_millis(20)).await;
            assert!(drawn.elapsed() >= RATE_WINDOW, "{wait:?} is too short");
            assert_eq!(answers(&gate, id, &[purchase(1)]).await, [Answer::Reserved]);
        }
    }

    async fn an_open_gate_is_never_opened_again(stores) {
        let (gate, id) = open(stores, 1, settings(3)).await;
        answers(&gate, id, &[purchase(1)]).await;
        let server_id = home(&gate, id).await.unwrap();
        assert_eq!(gate.open_new(id, &server_id, EPOCH, &settings(3)).await, Err(GateError::AnotherGate));
        assert_eq!(view(&gate, id).await.unwrap().remaining, 2);
    }

    async fn an_unknown_gate_is_lost_and_sells_nothing(stores) {
        let gate = gate(stores);
        assert_eq!(gate.reserve(product(9), &[purchase(1).into()]).await, Err(GateError::Lost));
        assert_eq!(gate.mark_written(product(9), &[purchase(1)]).await, Err(GateError::Lost));
        assert_eq!(gate.release(product(9), EPOCH, &[purchase(1)]).await, Err(GateError::Lost));
        assert_eq!(gate.configure(product(9), &settings(1)).await, Err(GateError::Lost));
        assert_eq!(gate.view(&[product(9)]).await.unwrap(), [None]);
        assert_eq!(gate.held_by(user(1), &[product(9)]).await.unwrap(), [None]);
    }

    async fn what_is_not_marked_written_is_found_again(stores) {
        let (gate, id) = open(stores, 1, settings(3)).await;
        let purchases = [purchase(7), purchase(8), purchase(9)];
        answers(&gate, id, &purchases).await;
        gate.mark_written(id, &purchases[..1]).await.unwrap();
        gate.release(id, EPOCH, &purchases[1..2]).await.unwrap();
        assert!(gate.stale(id, Duration::from_secs(60), 10).await.unwrap().purchases.is_empty(), "too young");
        let stale = gate.stale(id, Duration::ZERO, 10).await.unwrap();
        assert_eq!((stale.epoch, &stale.purchases[..]), (EPOCH, &purchases[2..]));
        let seen = view(&gate, id).await.unwrap();
        assert_eq!((seen.taken, seen.in_flight), (2, 1));
        gate.mark_written(id, &purchases).await.unwrap();
        assert!(gate.stale(id, Duration::ZERO, 10).await.unwrap().purchases.is_empty());
    }

    /// Guards against: a counter that drifts away from what buyers hold.
    async fn an_order_of_several_units_is_granted_whole_and_given_back_whole(stores) {
        let of = |id: i64, units: i64| Purchase { quantity: units.try_into().unwrap(), ..purchase(id) };
        let terms = settings(5).terms.map(|terms| Terms { max_per_order: 3.try_into().unwrap(), ..terms });
        let (gate, id) = open(stores, 1, SaleSettings { terms, ..settings(5) }).await;
        let (two, too_many, three) = (of(1, 2), of(2, 4), of(3, 3));
        let refused = |denial| Answer::Denied(denial);
        let most = refused(Denial::TooMany(3.try_into().unwrap()));
        assert_eq!(answers(&gate, id, &[two, too_many, three]).await, [Answer::Reserved, most, Answer::Reserved]);
        assert_eq!(answers(&gate, id, &[two, of(4, 1)]).await, [Answer::Reserved, SOLD_OUT], "repeating takes nothing twice");
        let again = Answer::InFlight { order_id: two.order_id, quantity: two.quantity, revision: Revision::FIRST };
        assert_eq!(answers(&gate, id, &[of(1, 1)]).await, [again], "another number of units is the same buyer");
        let (taken, in_flight) = (view(&gate, id).await.unwrap().taken, view(&gate, id).await.unwrap().in_flight);
        assert_eq!((taken, in_flight), (5, 2));
        for _ in 0..2 {
            gate.release(id, EPOCH, &[two]).await.unwrap();
            assert_eq!(view(&gate, id).await.unwrap().remaining, 2);
        }
        assert_eq!(answers(&gate, id, &[of(5, 3), of(6, 2)]).await, [refused(Denial::NotEnoughLeft(2)), Answer::Reserved]);
        assert_eq!(gate.stale(id, Duration::ZERO, 10).await.unwrap().purchases[0], three);
        gate.mark_written(id, &[three]).await.unwrap();
        assert_eq!(view(&gate, id).await.unwrap().in_flight, 1);
        assert_eq!(view(&gate, id).await.unwrap().taken, 5);
    }

    async fn what_is_in_flight_can_be_found_by_its_order(stores) {
        let (gate, id) = open(stores, 1, settings(3)).await;
        let mine = purchase(7);
        answers(&gate, id, &[mine, purchase(8)]).await;
        assert_eq!(gate.find_in_flight(id, mine.order_id).await.unwrap(), Some(mine));
        gate.mark_written(id, &[mine]).await.unwrap();
        assert_eq!(gate.find_in_flight(id, mine.order_id).await.unwrap(), None);
    }

    /// However the product is changed after the click, and however many clicks of other revisions there are beside.
    async fn what_is_in_flight_keeps_the_revision_of_its_click(stores) {
        let (gate, id) = open(stores, 1, settings(50)).await;
        let mut clicked = Vec::new();
        for n in 1..=8 {
            // Twice without a click, and at once after one another: within a millisecond.
            gate.configure(id, &SaleSettings { revision: 10 * n, ..settings(50) }).await.unwrap();
            gate.configure(id, &SaleSettings { revision: 10 * n + 1, ..settings(50) }).await.unwrap();
            let (mine, revision) = (purchase(n), Revision::try_from(10 * n + 1).unwrap());
            let admitted = Admission::Open { epoch: EPOCH, revision, terms: settings(50).terms, answers: vec![Answer::Reserved] };
            assert_eq!(gate.reserve(id, &[mine.into()]).await, Ok(admitted));
            clicked.push((mine, revision));
            if n == 3 {
                gate.mark_written(id, &[clicked.remove(0).0]).await.unwrap();
            }
        }
        for (mine, revision) in &clicked {
            let held = Answer::InFlight { order_id: mine.order_id, quantity: Quantity::ONE, revision: *revision };
            assert_eq!(answers(&gate, id, &[purchase(mine.user_id.get())]).await, [held]);
            assert_eq!(gate.revision_in_flight(id, *mine).await, Ok(Some(*revision)));
            let again = if *revision == clicked[6].1 { Answer::Reserved } else { held };
            assert_eq!(answers(&gate, id, &[*mine]).await, [again], "the same order again");
        }
        let stale = gate.stale(id, Duration::ZERO, 100).await.unwrap();
        assert_eq!(stale.purchases.iter().copied().zip(stale.revisions.iter().copied()).collect::<Vec<_>>(), clicked);
        let groups = stale.into_groups(id);
        assert!(groups.iter().all(|group| group.items.len() == 1 && group.epoch == EPOCH), "{groups:?}");
        for (mine, _) in &clicked {
            gate.mark_written(id, &[*mine]).await.unwrap();
            assert_eq!(gate.revision_in_flight(id, *mine).await, Ok(None), "then the order names it");
        }
    }

    /// By its own settings, whatever the caller believes: the sale may have been reopened since.
    async fn a_gate_is_taken_away_only_after_its_end_and_with_nothing_in_flight(stores) {
        let (gate, id) = open(stores, 1, settings(5)).await;
        let hour = Duration::from_secs(3600);
        let mine = purchase(1);
        answers(&gate, id, &[mine]).await;
        let stays = async |why: &str| {
            assert_eq!(gate.retire(id, EPOCH, hour).await, Ok(None), "{why}");
            assert!(view(&gate, id).await.is_some(), "{why}");
        };
        stays("without an end").await;
        let ended = |revision, ago: i64| SaleSettings { revision, ends_at: Some(now_and(-ago)), ..settings(5) };
        gate.configure(id, &ended(2, 3_500)).await.unwrap();
        stays("ended lately").await;
        gate.configure(id, &ended(3, 3_700)).await.unwrap();
        stays("with a purchase in flight").await;
        gate.mark_written(id, &[mine]).await.unwrap();
        assert_eq!(gate.retire(id, EPOCH + 1, hour).await, Ok(None), "another epoch's");
        gate.configure(id, &SaleSettings { revision: 4, ..settings(5) }).await.unwrap();
        stays("reopened").await;
        gate.configure(id, &ended(5, 3_700)).await.unwrap();
        assert_eq!(gate.retire(id, EPOCH, hour).await, Ok(Some(home(&gate, id).await.unwrap())));
        assert_eq!(view(&gate, id).await, None);
        assert_eq!(gate.retire(id, EPOCH, hour).await, Err(GateError::Lost), "once");
        assert_eq!(gate.reserve(id, &[purchase(2).into()]).await, Err(GateError::Lost));
        assert_eq!(gate.denial(id, user(2)), None);
    }

    async fn more_purchases_than_one_script_takes_are_answered_in_order(stores) {
        let (gate, id) = open(stores, 1, settings(1100)).await;
        let purchases: Vec<Purchase> = (1..=1200).map(purchase).collect();
        let answers = answers(&gate, id, &purchases).await;
        assert!(answers[..1100].iter().all(|answer| *answer == Answer::Reserved));
        assert!(answers[1100..].iter().all(|answer| *answer == SOLD_OUT));
        gate.mark_written(id, &purchases).await.unwrap();
        gate.release(id, EPOCH, &purchases).await.unwrap();
        assert_eq!(view(&gate, id).await.unwrap().remaining, 1100);
    }
}

/// Only a gate in Redis has other instances.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_instance_changes_denies_nobody_after_200_ms() {
    crate::run(Backend::Distributed, async |stores: &mut Stores| {
        let (gate, id) = open(stores, 1, settings(1)).await;
        let (gate, stop) = watched(gate);
        let other = crate::gate::gate(stores);
        let mut holder = purchase(1);
        answers(&gate, id, &[holder, purchase(2)]).await;
        for round in 0..5 {
            let sold_out = || async { gate.denial(id, user(1000 + round)).is_some() };
            eventually("it is known to be sold out", sold_out).await;
            other.release(id, EPOCH, &[holder]).await.unwrap();
            let changed = Instant::now();
            while gate.denial(id, user(2000 + round)).is_some() {
                assert!(changed.elapsed() < Duration::from_millis(250), "still refused after {:?}", changed.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            holder = purchase(3000 + round);
            assert_eq!(answers(&other, id, &[holder]).await, [Answer::Reserved]);
            assert_eq!(answers(&gate, id, &[purchase(4000 + round)]).await, [SOLD_OUT]);
        }
        stop.cancel();
    })
    .await;
}

/// The count of a gate's changes begins anew when it is rebuilt: its epoch tells the two apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_gate_is_not_taken_for_the_one_before() {
    crate::run(Backend::Distributed, async |stores: &mut Stores| {
        let (gate, id) = open(stores, 1, settings(1)).await;
        let (gate, stop) = watched(gate);
        answers(&gate, id, &[purchase(1), purchase(2)]).await;
        eventually("it is known to be sold out", || async { gate.denial(id, user(3)).is_some() }).await;
        // Another instance rebuilds it with another buyer.
        let other = crate::gate::gate(stores);
        let (server_id, next) = (home(&other, id).await.unwrap(), EPOCH + 1);
        let held = Purchase { quantity: 2.try_into().unwrap(), ..purchase(7) };
        let shared = other.shared().unwrap();
        shared.close(id, &server_id, next).await.unwrap();
        let mut staging = shared.stage(id, &server_id, next).await.unwrap();
        shared.add_staged(&mut staging, &[held.into()]).await.unwrap();
        shared.install(staging, &settings(2)).await.unwrap();
        assert_eq!(view(&other, id).await.unwrap().taken, 2, "units are loaded with their buyers");
        let rebuilt = Instant::now();
        while gate.denial(id, held.user_id).is_some() {
            assert!(rebuilt.elapsed() < Duration::from_millis(250), "a buyer is refused after {:?}", rebuilt.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        eventually("it is known to be sold out again", || async { gate.denial(id, user(8)).is_some() }).await;
        assert_eq!(gate.denial(id, held.user_id), None);
        stop.cancel();
    })
    .await;
}

/// Whom an instance has admitted itself it takes for a sale's buyers only if nobody came or went elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buyers_whom_another_instance_admitted_are_not_denied() {
    crate::run(Backend::Distributed, async |stores: &mut Stores| {
        let (gate, id) = open(stores, 1, settings(3)).await;
        let (gate, stop) = watched(gate);
        let other = crate::gate::gate(stores);
        let gone = purchase(1);
        assert_eq!(answers(&gate, id, &[gone, purchase(2)]).await, [Answer::Reserved, Answer::Reserved]);
        // As many buyers as this instance has admitted, but not the same.
        other.release(id, EPOCH, &[gone]).await.unwrap();
        assert_eq!(answers(&other, id, &[purchase(5)]).await, [Answer::Reserved]);
        assert_eq!(answers(&gate, id, &[purchase(3), purchase(4)]).await, [Answer::Reserved, SOLD_OUT]);
        eventually("it is known to be sold out", || async { gate.denial(id, user(6)).is_some() }).await;
        for holder in [2, 3, 5] {
            assert_eq!(gate.denial(id, user(holder)), None, "{holder} holds a unit");
        }
        assert!(gate.denial(id, gone.user_id).is_some());
        stop.cancel();
    })
    .await;
}

/// A closed gate that nobody opens, because its sale has ended meanwhile, does not stay for ever; one that is opened does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_gate_has_an_end() {
    crate::run(Backend::Distributed, async |stores: &mut Stores| {
        let gate = gate(stores);
        let (server_id, id) = (home(&gate, product(1)).await.unwrap(), product(1));
        let shared = gate.shared().unwrap();
        let lifetime = async || -> i64 {
            let mut ask = deadpool_redis::redis::cmd("TTL");
            ask.arg("seckill:{1}:gate").query_async(&mut stores.redis().await).await.unwrap()
        };
        shared.close(id, &server_id, EPOCH).await.unwrap();
        assert!((3600..=24 * 3600).contains(&lifetime().await));
        assert!(gate.retire(id, EPOCH, Duration::ZERO).await.is_err(), "somebody is opening it");
        let staging = shared.stage(id, &server_id, EPOCH).await.unwrap();
        shared.install(staging, &settings(1)).await.unwrap();
        assert_eq!(lifetime().await, -1);
    })
    .await;
}
