//! Callbacks of payment providers: the table of docs/api.md, each signed, each once, whatever comes twice, late or wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use seckill::model::Timestamp;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::on_both_backends;
use crate::provider::{
    Callback, begun, begun_again, events, history, key, metric, payment, product, send, sign, stand, standing, start,
    timestamp, units, with_short_window,
};
use crate::support::eventually_within;

on_both_backends! {
    async fn one_callback_pays_once_however_often_it_comes(app) {
        let id = product(app, json!({"max_per_order": 2})).await;
        let (order, begun) = begun(app, 7, id).await;
        let callback = Callback::of(&begun, "succeeded");
        for reply in join_all((0..20).map(|_| callback.send(app))).await {
            assert_eq!((reply.status, &reply.body), (200, &Value::Null));
        }
        assert_eq!(standing(app, &order, &begun).await, stand("paid", "succeeded"));
        let reference = callback.body["data"]["reference"].clone();
        assert_eq!(payment(app, &begun).await["reference"], reference);
        let paid = json!(["unpaid", "paid", "provider", reference]);
        assert_eq!(history(app, &order).await, std::slice::from_ref(&paid));
        let shown = app.client.order(7, &order).await.is(200);
        assert!(shown["paid_at"].is_string() && shown["paid_at"] == shown["updated_at"], "{shown}");
        assert_eq!((units(app, id).await, events(app).await), ((1, 1), 1));
        app.restart().await;
        for reply in join_all((0..20).map(|_| callback.send(app))).await {
            reply.is(200);
        }
        // As another event of the same, too.
        Callback::of(&begun, "succeeded").send(app).await.is(200);
        assert_eq!((history(app, &order).await, units(app, id).await, events(app).await), (vec![paid], (1, 1), 2));
        assert_eq!(metric(app, r#"seckill_payment_callbacks_total{outcome="repeated"}"#).await, Some(20.0));
        assert_eq!(metric(app, r#"seckill_payment_callbacks_total{outcome="unchanged"}"#).await, Some(1.0));
        app.balanced(id).await;
    }

    async fn a_failed_payment_changes_no_order_and_nothing_that_has_come(app) {
        let id = product(app, json!({})).await;
        let (order, first) = begun(app, 7, id).await;
        Callback::of(&first, "failed").send(app).await.is(200);
        assert_eq!(standing(app, &order, &first).await, stand("unpaid", "failed"));
        let second = start(app, 7, &order).await.is(201);
        Callback::of(&second, "succeeded").send(app).await.is(200);
        Callback::of(&second, "failed").send(app).await.is(200);
        assert_eq!(standing(app, &order, &second).await, stand("paid", "succeeded"));
        // The first came after all.
        Callback::of(&first, "succeeded").send(app).await.is(200);
        assert_eq!(standing(app, &order, &first).await, stand("paid", "refund_due"));
        Callback::of(&first, "failed").send(app).await.is(200);
        assert_eq!(standing(app, &order, &first).await, stand("paid", "refund_due"));
        assert_eq!((units(app, id).await, history(app, &order).await.len()), ((1, 1), 1));
        app.balanced(id).await;
    }

    /// Its provider had said that it failed, and was wrong.
    async fn money_that_comes_after_a_failure_pays_all_the_same(app) {
        let id = product(app, json!({})).await;
        let (order, begun) = begun(app, 7, id).await;
        Callback::of(&begun, "failed").send(app).await.is(200);
        Callback::of(&begun, "succeeded").send(app).await.is(200);
        assert_eq!(standing(app, &order, &begun).await, stand("paid", "succeeded"));
    }

    async fn a_refund_of_what_paid_cancels_and_that_of_a_double_payment_does_not(app) {
        let id = product(app, json!({"stock": 1})).await;
        let (order, first) = begun(app, 7, id).await;
        let second = begun_again(app, 7, &order, &first).await;
        Callback::of(&second, "succeeded").send(app).await.is(200);
        Callback::of(&first, "succeeded").send(app).await.is(200);
        assert_eq!(standing(app, &order, &first).await, stand("paid", "refund_due"));
        Callback::of(&first, "refunded").send(app).await.is(200);
        assert_eq!(standing(app, &order, &first).await, stand("paid", "refunded"));
        assert_eq!(standing(app, &order, &second).await, stand("paid", "succeeded"));
        app.client.buy(8, id).await.is_problem(409, "sold_out");

        let refund = Callback::of(&second, "refunded");
        for reply in join_all((0..10).map(|_| refund.send(app))).await {
            reply.is(200);
        }
        assert_eq!(standing(app, &order, &second).await, stand("cancelled", "refunded"));
        for late in ["succeeded", "failed", "refunded"] {
            Callback::of(&second, late).send(app).await.is(200);
            assert_eq!(standing(app, &order, &second).await, stand("cancelled", "refunded"), "{late}");
        }
        let reference = refund.body["data"]["reference"].clone();
        let changes = [json!(["unpaid", "paid", "provider", reference]), json!(["paid", "cancelled", "provider", reference])];
        assert_eq!((history(app, &order).await.as_slice(), units(app, id).await), (&changes[..], (0, 0)));
        eventually_within(3, "the unit is sold to another", || async { app.client.buy(8, id).await.status == 202 }).await;
        app.orders_written(id, 2).await;
        app.balanced(id).await;
    }

    async fn a_refund_after_the_administrator_s_cancel_changes_no_order_again(app) {
        let id = product(app, json!({})).await;
        let (order, begun) = begun(app, 7, id).await;
        Callback::of(&begun, "succeeded").send(app).await.is(200);
        app.client.post(&format!("/admin/orders/{order}/cancel"), Some(&app.client.admin()), json!({})).await.is(200);
        assert_eq!(standing(app, &order, &begun).await, stand("cancelled", "refund_due"));
        Callback::of(&begun, "refunded").send(app).await.is(200);
        assert_eq!(standing(app, &order, &begun).await, stand("cancelled", "refunded"));
        assert_eq!(history(app, &order).await.len(), 2);
        app.balanced(id).await;
    }

    /// A refund that overtakes the payment.
    async fn callbacks_in_the_wrong_order_end_alike(app) {
        let id = product(app, json!({})).await;
        let (order, begun) = begun(app, 7, id).await;
        Callback::of(&begun, "refunded").send(app).await.is(200);
        Callback::of(&begun, "succeeded").send(app).await.is(200);
        assert_eq!(standing(app, &order, &begun).await, stand("unpaid", "refunded"));
        start(app, 7, &order).await.is(201);
        assert_eq!(units(app, id).await, (1, 0));
    }

    async fn money_that_is_not_what_was_asked_for_is_due_back(app) {
        let id = product(app, json!({})).await;
        for (user, field, value) in [(7, "amount_cents", json!(1989)), (8, "amount_cents", json!(1991)), (9, "currency", json!("EUR")), (10, "currency", json!("usd"))] {
            let (order, begun) = begun(app, user, id).await;
            Callback::of(&begun, "succeeded").with(field, value.clone()).send(app).await.is(200);
            assert_eq!(standing(app, &order, &begun).await, stand("unpaid", "refund_due"), "{field} {value}");
            // Right now: it came once.
            Callback::of(&begun, "succeeded").send(app).await.is(200);
            assert_eq!(standing(app, &order, &begun).await, stand("unpaid", "refund_due"), "{field} {value}");
            let second = start(app, user, &order).await.is(201);
            Callback::of(&second, "succeeded").send(app).await.is(200);
            assert_eq!(standing(app, &order, &second).await, stand("paid", "succeeded"));
        }
        assert_eq!(units(app, id).await, (4, 4));
    }

    /// The same money cannot pay two orders.
    async fn a_reference_that_another_payment_has_pays_nothing(app) {
        let id = product(app, json!({})).await;
        let ((first, one), (second, other)) = (begun(app, 7, id).await, begun(app, 8, id).await);
        let (one_, other_) = (one.clone(), other.clone());
        let callbacks = [one_, other_].map(|payment| Callback::of(&payment, "succeeded").with("reference", "pi_1"));
        let (a, b) = tokio::join!(callbacks[0].send(app), callbacks[1].send(app));
        assert_eq!((a.status, b.status), (200, 200));
        let mut stands = [standing(app, &first, &one).await, standing(app, &second, &other).await];
        stands.sort();
        assert_eq!(stands, [stand("paid", "succeeded"), stand("unpaid", "refund_due")]);
        assert_eq!(units(app, id).await, (2, 1));
    }

    async fn what_is_not_of_a_payment_here_gets_200_and_does_nothing(app) {
        let id = product(app, json!({})).await;
        let (order, begun) = begun(app, 7, id).await;
        let unknown = json!({"id": uuid::Uuid::now_v7(), "amount_cents": 1990, "currency": "USD"});
        for kind in ["succeeded", "failed", "refunded"] {
            Callback::of(&unknown, kind).send(app).await.is(200);
            Callback::of(&begun, kind).with("payment_id", "pi_1").send(app).await.is(200);
        }
        Callback::of(&begun, "disputed").send(app).await.is(200);
        assert_eq!((standing(app, &order, &begun).await, events(app).await), (stand("unpaid", "pending"), 0));
        assert_eq!(metric(app, r#"seckill_payment_callbacks_total{outcome="unknown"}"#).await, Some(6.0));
        assert_eq!(metric(app, r#"seckill_payment_callbacks_total{outcome="ignored"}"#).await, Some(1.0));
    }

    async fn what_is_not_signed_rightly_or_not_understood_is_refused(app) {
        let id = product(app, json!({})).await;
        let (order, begun) = begun(app, 7, id).await;
        let callback = Callback::of(&begun, "succeeded");
        let (key, now, body): (_, _, String) = (key(&app.config), timestamp(0), callback.body.to_string());
        let right = sign(&key, "evt_1", &now, &body);
        let other = sign(b"0123456789abcdef0123456789abcdef", "evt_1", &now, &body);
        let old = timestamp(400);
        let ahead = timestamp(-400);
        let changed = body.replace("1990", "1991");
        for (id, time, signature, body) in [
            ("evt_1", &now, other.as_str(), &body),
            ("evt_1", &now, &right, &changed),
            ("evt_2", &now, &right, &body),
            ("evt_1", &old, &sign(&key, "evt_1", &old, &body), &body),
            ("evt_1", &ahead, &sign(&key, "evt_1", &ahead, &body), &body),
            ("evt_1", &now, "v1,", &body),
            ("evt_1", &now, "", &body),
        ] {
            send(app, id, time, signature, body.clone()).await.is_problem(400, "invalid_signature");
        }
        for missing in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            let mut request = app.client.request(Method::POST, "/payments/webhooks/test").body(body.clone());
            for (name, value) in [("webhook-id", "evt_1"), ("webhook-timestamp", &now), ("webhook-signature", &right)] {
                if name != missing {
                    request = request.header(name, value);
                }
            }
            let refused = app.client.send(request).await;
            refused.is_problem(400, "invalid_signature");
            assert!(refused.body["detail"].as_str().unwrap().contains(missing), "{refused:?}");
        }
        for (body, field) in [("{", "body"), ("[]", "body"), (r#"{"type":"payment.succeeded"}"#, "data"), (r#"{"data":{}}"#, "type")] {
            send(app, "evt_1", &now, &sign(&key, "evt_1", &now, body), body.to_owned()).await.is_invalid(field);
        }
        callback.clone().with("amount_cents", Value::Null).send(app).await.is_invalid("amount_cents");
        callback.clone().with("reference", "x".repeat(300)).send(app).await.is_invalid("reference");
        let large = callback.clone().with("more", "x".repeat(70_000));
        large.send(app).await.is_problem(413, "payload_too_large");
        assert_eq!((standing(app, &order, &begun).await, events(app).await), (stand("unpaid", "pending"), 0));
        assert_eq!(metric(app, r#"seckill_payment_callbacks_total{outcome="invalid_signature"}"#).await, Some(10.0));

        // Several, while the secret is changed: one that fits is enough.
        send(app, "evt_1", &now, &format!("v1a,AAAA {other} {right}"), body).await.is(200);
        assert_eq!(standing(app, &order, &begun).await, stand("paid", "succeeded"));
    }

    async fn money_for_an_order_whose_unit_was_resold_is_due_back_and_the_next_buyer_keeps_it(app) {
        let id = product(app, json!({"stock": 1})).await;
        let (expired, first) = begun(app, 7, id).await;
        with_short_window(app, id, 5).await;
        eventually_within(15, "it expires", || async { units(app, id).await.0 == 0 }).await;
        with_short_window(app, id, 900).await;
        eventually_within(5, "it is sold to another", || async { app.client.buy(8, id).await.status == 202 }).await;
        app.orders_written(id, 2).await;
        let callback = Callback::of(&first, "succeeded");
        for reply in join_all((0..5).map(|_| callback.send(app))).await {
            reply.is(200);
        }
        assert_eq!(standing(app, &expired, &first).await, stand("expired", "refund_due"));
        assert_eq!((units(app, id).await, history(app, &expired).await.len(), events(app).await), ((1, 0), 1, 1));
        let second = app.client.get("/orders", Some(&app.client.buyer(8))).await.is(200)["items"][0].clone();
        assert_eq!(second["status"], "unpaid");

        // Whoever gave it back, and whatever it is for, it stays dead.
        Callback::of(&first, "refunded").send(app).await.is(200);
        assert_eq!(standing(app, &expired, &first).await, stand("expired", "refunded"));
        app.balanced(id).await;
    }

    /// Each order is paid in time, or expires and is paid all the same, for its unit is still there.
    async fn a_payment_and_the_deadline_exclude_each_other(app) {
        const ROUNDS: i64 = 50;
        let id = product(app, json!({"stock": ROUNDS})).await;
        let mut rounds = Vec::new();
        for user in 1..=ROUNDS {
            rounds.push(app.client.buy(user, id).await.is(202)["order_id"].as_str().unwrap().to_owned());
        }
        app.orders_written(id, ROUNDS).await;
        let mut begun = Vec::new();
        for (order, user) in rounds.iter().zip(1..) {
            begun.push(start(app, user, order).await.is(201));
        }
        // The deadline of all is now; callbacks come before, while and after they expire.
        let race = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            app.stores.execute(&format!("UPDATE product_revisions SET payment_window_seconds = 5 WHERE product_id = {id}")).await;
            app.stores.execute("UPDATE payment_deadlines SET due_at = '2026-01-01 00:00:00.000'").await;
        };
        let last: Timestamp = serde_json::from_value(app.client.order(ROUNDS, &rounds[rounds.len() - 1]).await.is(200)["created_at"].clone()).unwrap();
        tokio::time::sleep(last.after(Duration::from_secs(5)).since(Timestamp::now())).await;
        let app: &TestApp = app;
        let pay = join_all(begun.iter().enumerate().map(|(place, payment)| async move {
            tokio::time::sleep(Duration::from_millis(12 * place as u64)).await;
            let callback = Callback::of(payment, "succeeded");
            // In a file, this test's own writing can be in the way: then it comes again, as a provider's does.
            loop {
                match callback.send(app).await {
                    reply if reply.status == 503 => tokio::time::sleep(Duration::from_millis(20)).await,
                    reply => return reply,
                }
            }
        }));
        let (replies, ()) = tokio::join!(pay, race);
        assert!(replies.iter().all(|reply| reply.status == 200));
        eventually_within(10, "all is decided", || async {
            app.stores.number("SELECT COUNT(*) AS n FROM orders WHERE status = 'unpaid'").await == 0
        }).await;
        let mut ends = BTreeMap::new();
        for (order, payment) in rounds.iter().zip(&begun) {
            assert_eq!(standing(app, order, payment).await, stand("paid", "succeeded"));
            let changes: Vec<String> = history(app, order).await.iter().map(|change| change[1].to_string()).collect();
            *ends.entry(changes.join(" ")).or_insert(0) += 1;
        }
        let end = |changes: &str| ends.get(changes).copied().unwrap_or(0);
        assert_eq!(end("\"paid\"") + end("\"expired\" \"paid\""), ROUNDS, "{ends:?}");
        assert_eq!(units(app, id).await, (ROUNDS, ROUNDS));
        app.orders_written(id, ROUNDS).await;
        app.balanced(id).await;
    }

    async fn a_rush_of_callbacks_is_answered_beside_purchases(app) {
        const COUNT: i64 = 1_000;
        let id = product(app, json!({"stock": COUNT})).await;
        let other = product(app, json!({"stock": 100})).await;
        let (users, mut payments): (Vec<i64>, Vec<String>) = ((1..=COUNT).collect(), Vec::new());
        for users in users.chunks(100) {
            let replies = join_all(users.iter().map(|user| app.client.buy(*user, id))).await;
            payments.extend(replies.into_iter().map(|reply| reply.is(202)["order_id"].as_str().unwrap().to_owned()));
        }
        app.orders_written(id, COUNT).await;
        // Each with the id of its order.
        let begin = "INSERT INTO payments (id, order_id, provider, status, amount_cents, currency, pending_order, created_at, updated_at) \
            SELECT id, id, 'test', 'pending', 1990, 'USD', id, created_at, updated_at FROM orders";
        app.stores.execute(begin).await;
        let app: &TestApp = app;
        let begun = std::time::Instant::now();
        let callbacks = join_all(payments.iter().map(|id| async move {
            Callback::of(&json!({"id": id, "amount_cents": 1990, "currency": "USD"}), "succeeded").send(app).await
        }));
        let purchases = join_all((1..=50).map(|user| app.client.buy(user, other)));
        let (callbacks, purchases) = tokio::join!(callbacks, purchases);
        println!("{:?}: {COUNT} callbacks answered in {:?}", app.config.backend, begun.elapsed());
        assert!(callbacks.iter().all(|reply| reply.status == 200));
        assert!(purchases.iter().all(|reply| reply.status == 202));
        assert_eq!((units(app, id).await, events(app).await), ((COUNT, COUNT), COUNT));
        app.orders_written(other, 50).await;
        app.balanced(id).await;
    }
}
