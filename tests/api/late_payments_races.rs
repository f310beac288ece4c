//! Late money beside others: other payments of the same order, the buyer's own cancel, a crowd that buys everything.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::app::TestApp;
use crate::late_payments::{agree, cancelled, count, told};
use crate::on_both_backends;
use crate::provider::{Callback, begun, begun_again, cancel, history, product, stand, standing, units};

on_both_backends! {
    async fn of_two_late_payments_one_pays_and_the_other_is_due_back(app) {
        const ROUNDS: i64 = 10;
        let id = product(app, json!({"stock": ROUNDS})).await;
        let mut pairs = Vec::new();
        for user in 1..=ROUNDS {
            let (order, first) = begun(app, user, id).await;
            let second = begun_again(app, user, &order, &first).await;
            cancel(app, user, &order).await;
            pairs.push((order, first, second));
        }
        let app: &TestApp = app;
        // The first one had failed, which was wrong.
        join_all(pairs.iter().flat_map(|(_, first, second)| [first, second]).map(|payment| async move {
            told(app, &Callback::of(payment, "succeeded")).await.is(200);
        })).await;
        for (order, first, second) in &pairs {
            let mut ends = [standing(app, order, first).await, standing(app, order, second).await];
            ends.sort();
            assert_eq!(ends, [stand("paid", "refund_due"), stand("paid", "succeeded")]);
            assert_eq!(history(app, order).await.len(), 2);
        }
        assert_eq!(units(app, id).await, (ROUNDS, ROUNDS));
        agree(app, id).await;
    }

    /// Whoever clicks gets a promise that is kept, whatever comes late for others. Several rounds.
    async fn a_crowd_that_buys_everything_and_late_payments_never_get_more_than_there_is(app) {
        const LATE: i64 = 20;
        let mut of_all_rounds = (0, 0);
        for (round, clicks) in [70, 40, 20].into_iter().enumerate() {
            let id = product(app, json!({"stock": LATE})).await;
            let mut late = Vec::new();
            for user in 1..=LATE {
                late.push(begun(app, user, id).await);
            }
            let app: &TestApp = app;
            // They give up while the crowd is there, and their money comes at once or a moment later.
            let paying = join_all(late.iter().zip(1..).map(|((order, payment), user)| async move {
                tokio::time::sleep(Duration::from_millis(30 * user as u64)).await;
                cancel(app, user, order).await;
                tokio::time::sleep(Duration::from_millis([0, 5, 150][user as usize % 3])).await;
                told(app, &Callback::of(payment, "succeeded")).await.is(200);
            }));
            let clicking = join_all((0..clicks).map(|click: i64| async move {
                tokio::time::sleep(Duration::from_millis((840 / clicks * click) as u64)).await;
                app.client.buy(100 + click, id).await.status == 202
            }));
            let (_, answers) = tokio::join!(paying, clicking);
            let promised = answers.iter().filter(|is_promised| **is_promised).count() as i64;
            app.orders_written(id, LATE + promised).await;
            assert_eq!(count(app, id, "status = 'rejected'").await, 0, "somebody's 202 was turned down");
            assert_eq!(count(app, id, "status = 'unpaid' AND user_id >= 100").await, promised);
            let mut revived = 0;
            for (order, payment) in &late {
                match standing(app, order, payment).await {
                    end if end == stand("paid", "succeeded") => revived += 1,
                    end => assert_eq!(end, stand("cancelled", "refund_due")),
                }
            }
            assert_eq!(units(app, id).await, (revived + promised, revived));
            println!("{:?}, round {round}: {revived} of {LATE} revived, {promised} promised", app.config.backend);
            of_all_rounds = (of_all_rounds.0 + revived, of_all_rounds.1 + promised);
            agree(app, id).await;
        }
        assert!(of_all_rounds.0 > 0 && of_all_rounds.1 > 0, "the test is about both: {of_all_rounds:?}");
    }

    /// A buyer gives up at the moment that their money comes.
    async fn a_cancel_and_a_payment_at_the_same_instant_end_with_a_paid_order(app) {
        const ROUNDS: i64 = 15;
        let id = product(app, json!({"stock": ROUNDS})).await;
        let mut rounds = Vec::new();
        for user in 1..=ROUNDS {
            rounds.push(begun(app, user, id).await);
        }
        let app: &TestApp = app;
        join_all(rounds.iter().zip(1..).map(|((order, payment), user)| async move {
            let callback = Callback::of(payment, "succeeded");
            let (token, path) = (app.client.buyer(user), format!("/orders/{order}/cancel"));
            let (paid, cancelled) = tokio::join!(told(app, &callback), app.client.call(Method::POST, &path, Some(&token), None));
            paid.is(200);
            assert!([200, 409, 503].contains(&cancelled.status), "{cancelled:?}");
        })).await;
        for (order, payment) in &rounds {
            assert_eq!(standing(app, order, payment).await, stand("paid", "succeeded"));
        }
        assert_eq!(units(app, id).await, (ROUNDS, ROUNDS));
        agree(app, id).await;
    }

    /// They can wait, and must not make others wait.
    async fn late_money_holds_up_nobody_s_payment(app) {
        const LATE: i64 = 30;
        let id = product(app, json!({"stock": 2 * LATE})).await;
        let (mut late, mut others) = (Vec::new(), Vec::new());
        for user in 1..=LATE {
            late.push(cancelled(app, user, id).await);
            others.push(begun(app, 100 + user, id).await);
        }
        let app: &TestApp = app;
        let callbacks: Vec<Callback> = late.iter().chain(&others).map(|(_, payment)| Callback::of(payment, "succeeded")).collect();
        for reply in join_all(callbacks.iter().map(|callback| told(app, callback))).await {
            reply.is(200);
        }
        assert_eq!((units(app, id).await, count(app, id, "status = 'paid'").await), ((2 * LATE, 2 * LATE), 2 * LATE));
        agree(app, id).await;
    }
}
