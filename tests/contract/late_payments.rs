//! Late payments at the gate, and the second life of an order in the database.

use std::time::Duration;

use seckill::config::Backend;
use seckill::db::{DbError, NewChange};
use seckill::model::{
    ChangedBy, LatePayment, Life, OrderStatus, PaymentId, ProductId, Purchase, SaleSettings, Terms, Timestamp,
};
use seckill::stock::{Answer, GateError, LoadedBuyers, PaymentAdmission, StockGate};

use crate::database::{database, new_product, sell};
use crate::gate::{EPOCH, answers, gate, home, now_and, open, settings, view};
use crate::support::{Stores, eventually};
use crate::{on_both_backends, product, purchase, user};

const NEW: PaymentAdmission = PaymentAdmission::Admitted { epoch: EPOCH, is_new: true };
const HAD: PaymentAdmission = PaymentAdmission::Admitted { epoch: EPOCH, is_new: false };

/// With up to three units an order.
fn settings_of_several(stock: i64) -> SaleSettings {
    let terms = settings(stock).terms.map(|terms| Terms { max_per_order: 3.try_into().unwrap(), ..terms });
    SaleSettings { terms, ..settings(stock) }
}

fn of(id: i64, units: i64) -> Purchase {
    Purchase { quantity: units.try_into().unwrap(), ..purchase(id) }
}

fn late(purchase: Purchase) -> LatePayment {
    LatePayment::new(purchase, PaymentId::draw())
}

async fn ask(gate: &StockGate, id: ProductId, late: LatePayment) -> PaymentAdmission {
    gate.admit_payment(id, &late).await.unwrap()
}

/// Units that are taken, and what is in flight.
async fn counts(gate: &StockGate, id: ProductId) -> (i64, i64) {
    let view = view(gate, id).await.unwrap();
    (view.taken, view.in_flight)
}

async fn in_flight(gate: &StockGate, id: ProductId) -> Vec<LatePayment> {
    let stale = gate.stale(id, Duration::ZERO, 10).await.unwrap();
    assert!(stale.purchases.is_empty(), "{stale:?}");
    stale.late_payments
}

/// A gate that is filled from the database with these.
async fn filled(stores: &Stores, id: ProductId, epoch: i64, lives: &[Life]) -> StockGate {
    let gate = gate(stores);
    let settings = settings_of_several(5);
    let Some(shared) = gate.shared() else {
        let mut held = LoadedBuyers::expecting(1, &settings);
        held.extend(lives.iter().copied());
        gate.open_with(id, epoch, &settings, held).unwrap();
        return gate;
    };
    let server_id = home(&gate, id).await.unwrap();
    shared.close(id, &server_id, epoch).await.unwrap();
    let mut staging = shared.stage(id, &server_id, epoch).await.unwrap();
    shared.add_staged(&mut staging, lives).await.unwrap();
    shared.install(staging, &settings).await.unwrap();
    gate
}

on_both_backends! {
    async fn a_late_payment_takes_the_units_of_its_order_once(stores) {
        let (gate, id) = open(stores, 1, settings_of_several(3)).await;
        let mine = late(of(1, 2));
        assert_eq!(ask(&gate, id, mine).await, NEW);
        assert_eq!(counts(&gate, id).await, (2, 1));
        let again = LatePayment::new(mine.purchase, mine.payment);
        assert_eq!(ask(&gate, id, again).await, HAD, "another call of the same payment");
        assert_eq!(ask(&gate, id, late(mine.purchase)).await, PaymentAdmission::Busy, "another payment of the order");
        assert_eq!(ask(&gate, id, late(of(1, 1))).await, PaymentAdmission::Refused, "another order of the buyer");
        assert_eq!(answers(&gate, id, &[purchase(1), mine.purchase]).await, [Answer::Revived(mine.purchase.order_id); 2]);
        assert_eq!((counts(&gate, id).await, in_flight(&gate, id).await), ((2, 1), vec![mine]));

        // What its entry in flight does not name does not end it.
        gate.mark_revived(id, EPOCH, &again).await.unwrap();
        gate.mark_written(id, &[mine.purchase]).await.unwrap();
        gate.release(id, EPOCH, &[mine.purchase]).await.unwrap();
        gate.release(id, EPOCH, &[late(mine.purchase)]).await.unwrap();
        assert_eq!(gate.mark_revived(id, EPOCH + 1, &mine).await, Err(GateError::AnotherGate));
        assert_eq!(gate.release(id, EPOCH + 1, &[mine]).await, Err(GateError::AnotherGate));
        assert_eq!((counts(&gate, id).await, in_flight(&gate, id).await), ((2, 1), vec![mine]));

        gate.mark_revived(id, EPOCH, &mine).await.unwrap();
        assert_eq!(counts(&gate, id).await, (2, 0));
        gate.release(id, EPOCH, &[mine.purchase]).await.unwrap();
        assert_eq!(counts(&gate, id).await, (2, 0), "the release of its first life");
        assert_eq!(answers(&gate, id, &[purchase(1)]).await, [Answer::Revived(mine.purchase.order_id)]);
        for _ in 0..2 {
            gate.release(id, EPOCH, &[mine.life()]).await.unwrap();
            assert_eq!(counts(&gate, id).await, (0, 0));
        }
    }

    /// Guards against: the release of an order's first life, however late it comes, that takes its second one away.
    async fn what_its_first_life_still_holds_goes_over(stores) {
        let (gate, id) = open(stores, 1, settings_of_several(3)).await;
        let (mine, other) = (of(1, 2), purchase(2));
        assert_eq!(answers(&gate, id, &[mine, other]).await, [Answer::Reserved, Answer::Reserved]);
        gate.mark_written(id, &[other]).await.unwrap();
        let payment = late(mine);
        assert_eq!(ask(&gate, id, payment).await, NEW, "nothing remains, and it needs nothing");
        assert_eq!((counts(&gate, id).await, in_flight(&gate, id).await), ((3, 1), vec![payment]));
        gate.mark_written(id, &[mine]).await.unwrap();
        gate.release(id, EPOCH, &[mine]).await.unwrap();
        assert_eq!(gate.revision_in_flight(id, mine).await, Ok(None));
        assert_eq!(gate.find_in_flight(id, mine.order_id).await, Ok(None), "its order is written");
        assert_eq!((counts(&gate, id).await, in_flight(&gate, id).await), ((3, 1), vec![payment]));
        gate.release(id, EPOCH, &[payment]).await.unwrap();
        assert_eq!((counts(&gate, id).await, in_flight(&gate, id).await), ((1, 0), vec![]));
    }

    /// The call that made a reservation has ended, and the payment is refunded. Whoever asked again, and died, has left an entry.
    async fn an_entry_in_flight_belongs_to_one_call(stores) {
        let (gate, id) = open(stores, 1, settings(3)).await;
        let first = late(purchase(1));
        let second = LatePayment::new(first.purchase, first.payment);
        assert_eq!(ask(&gate, id, first).await, NEW);
        gate.release(id, EPOCH, &[first.life()]).await.unwrap();
        assert_eq!(counts(&gate, id).await, (0, 1), "it is not known yet who called");
        assert_eq!(ask(&gate, id, second).await, NEW);
        gate.mark_revived(id, EPOCH, &first).await.unwrap();
        assert_eq!(in_flight(&gate, id).await, [second]);
        gate.release(id, EPOCH, &[first]).await.unwrap();
        assert_eq!((counts(&gate, id).await, in_flight(&gate, id).await), ((0, 1), vec![second]));
        gate.release(id, EPOCH, &[second]).await.unwrap();
        assert_eq!(counts(&gate, id).await, (0, 0));
    }

    async fn a_late_payment_gets_all_units_or_none_whatever_the_window_says(stores) {
        let (gate, id) = open(stores, 1, settings_of_several(3)).await;
        answers(&gate, id, &[of(1, 2)]).await;
        assert_eq!(ask(&gate, id, late(of(2, 2))).await, PaymentAdmission::Refused, "one remains");
        let over = SaleSettings { revision: 2, ends_at: Some(now_and(-3700)), paused: true, ..settings_of_several(3) };
        gate.configure(id, &over).await.unwrap();
        let mine = late(purchase(3));
        assert_eq!(ask(&gate, id, mine).await, NEW);
        assert_eq!(ask(&gate, id, late(purchase(4))).await, PaymentAdmission::Refused);
        assert_eq!(view(&gate, id).await.unwrap().remaining, 0);
        gate.configure(id, &SaleSettings { revision: 3, stock: 1, ..over }).await.unwrap();
        gate.release(id, EPOCH, &[mine.purchase]).await.unwrap();
        assert_eq!(ask(&gate, id, late(purchase(4))).await, PaymentAdmission::Refused, "fewer are offered than taken");
        assert_eq!(gate.admit_payment(product(9), &mine).await, Err(GateError::Lost));
        assert_eq!(gate.mark_revived(product(9), EPOCH, &mine).await, Err(GateError::Lost));
    }

    async fn a_gate_with_a_late_payment_in_flight_is_not_taken_away(stores) {
        let (gate, id) = open(stores, 1, settings(3)).await;
        let mine = late(purchase(1));
        assert_eq!(ask(&gate, id, mine).await, NEW);
        gate.configure(id, &SaleSettings { revision: 2, ends_at: Some(now_and(-3700)), ..settings(3) }).await.unwrap();
        assert_eq!(gate.retire(id, EPOCH, Duration::from_secs(3600)).await, Ok(None));
        gate.mark_revived(id, EPOCH, &mine).await.unwrap();
        assert!(gate.retire(id, EPOCH, Duration::from_secs(3600)).await.unwrap().is_some());
    }

    /// Guards against: a revived order that looks like its first life in the next gate.
    async fn a_gate_that_is_filled_knows_what_was_revived(stores) {
        let id = product(1);
        let (mine, other) = (late(of(1, 2)), purchase(2));
        let gate = filled(stores, id, EPOCH + 1, &[mine.life(), other.into()]).await;
        assert_eq!(counts(&gate, id).await, (3, 0));
        assert_eq!(ask(&gate, id, late(mine.purchase)).await, PaymentAdmission::Busy);
        let again = LatePayment::new(mine.purchase, mine.payment);
        assert_eq!(ask(&gate, id, again).await, PaymentAdmission::Admitted { epoch: EPOCH + 1, is_new: false });
        gate.release(id, EPOCH + 1, &[mine.purchase]).await.unwrap();
        assert_eq!(counts(&gate, id).await, (3, 0));
        gate.release(id, EPOCH + 1, &[mine.life(), other.into()]).await.unwrap();
        assert_eq!(counts(&gate, id).await, (0, 0));
    }

    async fn a_full_sale_takes_nobody_for_a_stranger_whom_a_late_payment_has_brought_back(stores) {
        let (gate, id) = open(stores, 1, settings(2)).await;
        let gate = std::sync::Arc::new(gate);
        let stop = tokio_util::sync::CancellationToken::new();
        let (watching, until) = (gate.clone(), stop.clone());
        tokio::spawn(async move { watching.watch(until).await });
        let (mine, other) = (late(purchase(1)), purchase(2));
        answers(&gate, id, &[other]).await;
        assert_eq!(ask(&gate, id, mine).await, NEW);
        answers(&gate, id, &[purchase(3)]).await;
        eventually("strangers are refused", || async { gate.denial(id, user(4)).is_some() }).await;
        assert_eq!((gate.denial(id, user(1)), gate.denial(id, user(2))), (None, None));
        stop.cancel();
    }

    /// Guards against: a gate that is filled without the payment that revived an order, and a release that was read of its first life.
    async fn a_revived_order_is_another_life(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 5).await;
        let (mine, payment) = (purchase(7), PaymentId::draw());
        assert!(sell(&db, id, 1, &[mine, purchase(8)]).await);
        let first = Life::from(mine);
        let second = Life { revived_by: Some(payment), ..first };
        let due = async || {
            let due = db.read(move |conn| Box::pin(conn.release_due(Timestamp::EARLIEST, 10))).await.unwrap();
            due.into_iter().map(|(product, epoch, life)| (product == id && epoch == 1, life)).collect::<Vec<_>>()
        };
        let change = |from, to, by| NewChange { from, to, by, user: None, reason: None, at: Timestamp::now() };
        let die = async |from, by| {
            let change = change(from, OrderStatus::Cancelled, by);
            let dead = db.transaction(move |conn| Box::pin(async move { conn.change_orders(&[mine.order_id], &change).await }));
            assert_eq!(dead.await.unwrap(), 1);
        };
        let revive = async |from, by: PaymentId| {
            let change = change(from, OrderStatus::Paid, ChangedBy::Provider);
            let revived = db.transaction(move |conn| Box::pin(async move {
                let order = conn.order_state(mine.order_id).await?.unwrap();
                conn.revive_order(&order, by, &change).await
            }));
            revived.await.unwrap()
        };
        let clear = async |life: Life| {
            db.transaction(move |conn| Box::pin(async move { conn.clear_release_due(&[life]).await })).await.unwrap();
        };
        assert!(!revive(OrderStatus::Unpaid, payment).await, "it is live");
        die(OrderStatus::Unpaid, ChangedBy::Buyer).await;
        assert_eq!(due().await, [(true, first)]);
        assert!(!revive(OrderStatus::Expired, payment).await, "it stands elsewhere");
        assert!(revive(OrderStatus::Cancelled, payment).await);
        assert_eq!(due().await, [], "its first life's units are the second one's");
        let mut pages = [
            db.read(move |conn| Box::pin(conn.live_orders_page(id, 0, 10))).await.unwrap().0,
            db.read(move |conn| Box::pin(conn.live_orders_after(id, None, 10))).await.unwrap(),
        ];
        for page in &mut pages {
            page.sort_by_key(|life| life.purchase.user_id);
            assert_eq!((page.len(), page[0], page[1].revived_by), (2, second, None));
        }
        die(OrderStatus::Paid, ChangedBy::Provider).await;
        assert_eq!(due().await, [(true, second)]);
        clear(first).await;
        assert_eq!(due().await, [(true, second)], "who released the first life knows nothing of the second");
        clear(second).await;
        assert_eq!(due().await, []);
        assert!(!revive(OrderStatus::Cancelled, PaymentId::draw()).await, "a third life");
        let last = db.read(move |conn| Box::pin(async move { conn.last_changed_by(&[mine.order_id]).await })).await.unwrap();
        assert_eq!(last.get(&mine.order_id), Some(&ChangedBy::Provider));
    }

    async fn nobody_has_a_revived_order_beside_another_live_one(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 5).await;
        let (first, second) = (purchase(7), purchase(7));
        assert!(sell(&db, id, 1, &[first]).await);
        let dead = "UPDATE orders SET status = 'expired', live_user = NULL, release_due = 1";
        stores.execute(dead).await;
        assert!(sell(&db, id, 1, &[second]).await);
        let (from, to, by) = (OrderStatus::Expired, OrderStatus::Paid, ChangedBy::Provider);
        let change = NewChange { from, to, by, user: None, reason: None, at: Timestamp::now() };
        let revived = db.transaction(move |conn| Box::pin(async move {
            let order = conn.order_state(first.order_id).await?.unwrap();
            conn.revive_order(&order, PaymentId::draw(), &change).await
        }));
        assert!(matches!(revived.await, Err(DbError::Duplicate(_))));
    }
}

/// A gate as the version before left it, and what it cannot read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_of_the_version_before_goes_on_and_spoiled_marks_cost_their_own_buyers_alone() {
    crate::run(Backend::Distributed, async |stores: &mut Stores| {
        let (gate, id) = open(stores, 1, settings_of_several(9)).await;
        let (one, two) = (purchase(1), of(2, 2));
        let redis = async |words: &[String]| {
            let mut command = deadpool_redis::redis::cmd(&words[0]);
            command.arg(&words[1..]).query_async::<()>(&mut stores.redis().await).await.unwrap();
        };
        let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        // As its scripts wrote them.
        redis(&words(format!("HSET seckill:{{1}}:buyers 1 {} 2 {}*2", one.order_id, two.order_id))).await;
        redis(&words(format!("ZADD seckill:{{1}}:flight 5 {}:1 6 {}*2:2", one.order_id, two.order_id))).await;
        redis(&words("HSET seckill:{1}:gate extra 1".to_owned())).await;
        assert_eq!(counts(&gate, id).await, (3, 2));
        let (first, second) = (late(one), late(two));
        assert_eq!((ask(&gate, id, first).await, ask(&gate, id, second).await), (NEW, NEW));
        assert_eq!((counts(&gate, id).await, in_flight(&gate, id).await), ((3, 2), vec![first, second]));
        gate.release(id, EPOCH, &[first, second]).await.unwrap();
        assert_eq!(counts(&gate, id).await, (0, 0));

        let order = purchase(5).order_id;
        for spoiled in [format!("{order}@"), format!("{order}@7"), format!("{order}@{}*0", PaymentId::draw())] {
            redis(&words(format!("HSET seckill:{{1}}:buyers 5 {spoiled}"))).await;
            assert_eq!(answers(&gate, id, &[purchase(5)]).await, [Answer::Unreadable], "{spoiled}");
        }
        let spoiled = format!("{order}:5:7");
        redis(&words(format!("ZADD seckill:{{1}}:flight 1 {spoiled}"))).await;
        assert_eq!(ask(&gate, id, first).await, NEW);
        assert_eq!(in_flight(&gate, id).await, [first]);
    })
    .await;
}
