//! Payments at Stripe, as the server of the tests plays it: nothing is paid twice, nothing is owed for ever, whatever gets lost.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use seckill::config::Backend;
use seckill::model::Timestamp;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::fake_stripe::{ENDPOINT_SECRET, FakeStripe, Fault, event, signature, tell, tell_signed};
use crate::provider::{begun, cancel, events, history, order, payment, product, standing, start};
use crate::support::eventually_within;

/// Makes each `async fn name(app, stripe)` a test on every backend.
macro_rules! at_stripe {
    ($(async fn $name:ident($app:ident, $stripe:ident) $body:block)+) => {
        $(async fn $name($app: &mut TestApp, $stripe: &FakeStripe) $body)+

        mod embedded {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let stripe = FakeStripe::start().await;
                TestApp::run_with(Backend::Embedded, stripe.configure(), async |app: &mut TestApp| super::$name(app, &stripe).await).await;
            })+
        }

        mod distributed {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let stripe = FakeStripe::start().await;
                TestApp::run_with(Backend::Distributed, stripe.configure(), async |app: &mut TestApp| super::$name(app, &stripe).await).await;
            })+
        }
    };
}

fn stand(order: &str, payment: &str) -> (String, String) {
    (order.to_owned(), payment.to_owned())
}

/// Where the buyer pays.
fn url(payment: &Value) -> &str {
    payment["redirect_url"].as_str().unwrap()
}

async fn becomes(app: &TestApp, order: &str, payment: &Value, order_status: &str, payment_status: &str) {
    let expected = stand(order_status, payment_status);
    eventually_within(40, &format!("order and payment are {expected:?}"), || async {
        standing(app, order, payment).await == expected
    })
    .await;
}

async fn cancel_as_admin(app: &TestApp, order: &str) {
    app.client.post(&format!("/admin/orders/{order}/cancel"), Some(&app.client.admin()), json!({})).await.is(200);
}

at_stripe! {
    async fn an_order_is_paid_at_its_checkout_and_told_once(app, stripe) {
        let id = product(app, json!({"max_per_order": 3, "price_cents": 1990, "payment_window_seconds": 3600})).await;
        let bought = app.client.call(Method::POST, &format!("/seckill/{id}"), Some(&app.client.buyer(7)), Some(json!({"quantity": 3}))).await;
        let order = bought.is(202)["order_id"].as_str().unwrap().to_owned();
        app.orders_written(id, 1).await;
        let started = join_all((0..5).map(|_| start(app, 7, &order))).await;
        let again = start(app, 7, &order).await.is(200);
        // Those that came together may have been told to come again, for one of them had the key.
        assert!(started.iter().all(|reply| [200, 201, 503].contains(&reply.status)), "{started:?}");
        assert_eq!(started.iter().filter(|reply| reply.status == 201).count(), 1, "{started:?}");
        let sessions = stripe.sessions();
        assert_eq!((sessions.len(), &sessions[0]["url"]), (1, &again["redirect_url"]));
        let session = &sessions[0];
        assert_eq!((&session["amount_total"], &session["currency"], &session["name"]), (&json!(5970), &json!("usd"), &json!("Sneaker")));
        assert_eq!(session["success_url"], format!("https://shop.example/orders/{order}"));
        // It ends before our deadline, by the grace.
        let shown = app.client.order(7, &order).await.is(200);
        let deadline: Timestamp = serde_json::from_value(shown["expires_at"].clone()).unwrap();
        assert_eq!(session["expires_at"], (deadline.unix_ms() - 10_000) / 1000);

        let completed = stripe.pay(url(&again));
        for reply in join_all((0..10).map(|_| tell(app, &completed))).await {
            assert_eq!((reply.status, &reply.body), (200, &Value::Null));
        }
        assert_eq!(standing(app, &order, &again).await, stand("paid", "succeeded"));
        let paid = payment(app, &again).await;
        assert_eq!((&paid["reference"], &paid["redirect_url"]), (&completed["data"]["object"]["payment_intent"], &Value::Null));
        // In another order, and once more under another name.
        let session = &completed["data"]["object"];
        for kind in ["checkout.session.expired", "checkout.session.async_payment_failed", "checkout.session.async_payment_succeeded"] {
            tell(app, &event(kind, session)).await.is(200);
        }
        assert_eq!((standing(app, &order, &again).await, history(app, &order).await.len()), (stand("paid", "succeeded"), 1));
        app.balanced(id).await;
    }

    async fn a_checkout_that_could_not_be_opened_is_opened_when_the_buyer_comes_again(app, stripe) {
        let id = product(app, json!({})).await;
        for (user, fault, sessions) in [
            (7, Fault::Busy, 1),
            (8, Fault::KeyInUse, 1),
            (9, Fault::HangsUp, 1),
            (10, Fault::Unauthorized, 1),
            (11, Fault::FailsBefore, 1),
            // The first one stays unknown to everybody.
            (12, Fault::FailsAfterwards, 2),
        ] {
            let order = order(app, user, id).await;
            stripe.fail(&[fault]);
            let refused = start(app, user, &order).await;
            refused.is_problem(503, "unavailable");
            assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
            let begun = start(app, user, &order).await.is(200);
            let of_it = |session: &Value| session["metadata"]["payment_id"] == begun["id"];
            assert_eq!(stripe.sessions().into_iter().filter(of_it).count(), sessions, "{fault:?}");
            tell(app, &stripe.pay(url(&begun))).await.is(200);
            assert_eq!(standing(app, &order, &begun).await, stand("paid", "succeeded"), "{fault:?}");
        }
        app.balanced(id).await;
    }

    async fn a_checkout_ends_when_its_order_is_not_to_be_paid_any_more(app, stripe) {
        let id = product(app, json!({"payment_window_seconds": 15})).await;
        let (given_up, first) = begun(app, 7, id).await;
        let begun_at = Instant::now();
        let (expiring, second) = begun(app, 8, id).await;
        let cancel = format!("/orders/{given_up}/cancel");
        app.client.call(Method::POST, &cancel, Some(&app.client.buyer(7)), None).await.is(200);
        becomes(app, &given_up, &first, "cancelled", "failed").await;
        assert!(begun_at.elapsed() < Duration::from_secs(4), "{:?}", begun_at.elapsed());
        // Ten seconds before its deadline, and by ourselves: Stripe's shortest life of a checkout is longer.
        becomes(app, &expiring, &second, "unpaid", "failed").await;
        assert!(begun_at.elapsed() < Duration::from_secs(12), "{:?}", begun_at.elapsed());
        assert!(stripe.sessions().iter().all(|session| session["status"] == "expired"));
        start(app, 8, &expiring).await.is_problem(409, "not_payable");
        becomes(app, &expiring, &second, "expired", "failed").await;
        app.balanced(id).await;
    }

    async fn a_payment_of_which_no_callback_came_is_found(app, stripe) {
        let id = product(app, json!({"payment_window_seconds": 15})).await;
        let (order, begun) = begun(app, 7, id).await;
        let completed = stripe.pay(url(&begun));
        stripe.fail(&[Fault::Busy]);
        becomes(app, &order, &begun, "paid", "succeeded").await;
        // It comes after all.
        tell(app, &completed).await.is(200);
        assert_eq!((standing(app, &order, &begun).await, events(app).await), (stand("paid", "succeeded"), 2));
        app.balanced(id).await;
    }

    async fn money_that_is_found_too_late_pays_the_order_or_is_given_back(app, stripe) {
        // Nobody tells of it; it is found when its order is given up.
        let id = product(app, json!({"stock": 1})).await;
        let (revived, payment) = begun(app, 7, id).await;
        let completed = stripe.pay(url(&payment));
        cancel(app, 7, &revived).await;
        becomes(app, &revived, &payment, "paid", "succeeded").await;
        tell(app, &completed).await.is(200);
        assert_eq!(standing(app, &revived, &payment).await, stand("paid", "succeeded"));
        cancel_as_admin(app, &revived).await;
        becomes(app, &revived, &payment, "cancelled", "refunded").await;

        let (dead, payment) = begun(app, 8, id).await;
        stripe.pay(url(&payment));
        // Stripe is asked again after five seconds, and by then its unit is another's.
        stripe.fail(&[Fault::Busy]);
        cancel(app, 8, &dead).await;
        eventually_within(4, "its unit is sold", || async { app.client.buy(9, id).await.status == 202 }).await;
        becomes(app, &dead, &payment, "cancelled", "refunded").await;
        assert_eq!(stripe.refunds().len(), 2);
        app.orders_written(id, 3).await;
        app.balanced(id).await;
    }

    async fn what_is_owed_is_given_back_once_whatever_fails(app, stripe) {
        let id = product(app, json!({})).await;
        let mut refunds = 0;
        for (user, faults) in [
            (7, &[][..]),
            // The list, and then the refund itself.
            (8, &[Fault::Busy, Fault::HangsUp]),
        ] {
            let (order, begun) = begun(app, user, id).await;
            tell(app, &stripe.pay(url(&begun))).await.is(200);
            stripe.fail(faults);
            cancel_as_admin(app, &order).await;
            becomes(app, &order, &begun, "cancelled", "refunded").await;
            refunds += 1;
            assert_eq!(stripe.refunds().len(), refunds, "{faults:?}");
        }
        app.balanced(id).await;
    }

    async fn a_refund_whose_answer_was_lost_is_not_asked_for_twice(app, stripe) {
        let id = product(app, json!({})).await;
        let (order, begun) = begun(app, 7, id).await;
        tell(app, &stripe.pay(url(&begun))).await.is(200);
        let before = stripe.requests("GET /v1/refunds");
        // The first request of a refund reads, the second asks for it.
        stripe.fail_refund(Fault::FailsAfterwards);
        cancel_as_admin(app, &order).await;
        becomes(app, &order, &begun, "cancelled", "refunded").await;
        assert_eq!((stripe.refunds().len(), stripe.requests("POST /v1/refunds")), (1, 1));
        assert!(stripe.requests("GET /v1/refunds") >= before + 2);
    }

    async fn a_refund_that_takes_days_is_asked_for_once_and_ends_by_its_callback(app, stripe) {
        let id = product(app, json!({})).await;
        let (order, begun) = begun(app, 7, id).await;
        let completed = stripe.pay(url(&begun));
        tell(app, &completed).await.is(200);
        stripe.fail_refund(Fault::Pending);
        cancel_as_admin(app, &order).await;
        eventually_within(20, "it is asked for twice", || async { stripe.requests("GET /v1/refunds") >= 2 }).await;
        assert_eq!(standing(app, &order, &begun).await, stand("cancelled", "refund_due"));
        assert_eq!(stripe.requests("POST /v1/refunds"), 1);
        tell(app, &stripe.charge_refunded(&completed["data"]["object"])).await.is(200);
        assert_eq!(standing(app, &order, &begun).await, stand("cancelled", "refunded"));
    }

    async fn a_refund_that_failed_is_asked_for_again(app, stripe) {
        let id = product(app, json!({})).await;
        let (order, begun) = begun(app, 7, id).await;
        tell(app, &stripe.pay(url(&begun))).await.is(200);
        stripe.fail_refund(Fault::Refused);
        cancel_as_admin(app, &order).await;
        becomes(app, &order, &begun, "cancelled", "refunded").await;
        assert_eq!(stripe.refunds().len(), 2);
    }

    async fn money_of_the_wrong_amount_goes_back_and_a_part_that_went_back_changes_nothing(app, stripe) {
        let id = product(app, json!({})).await;
        let (order, begun) = begun(app, 7, id).await;
        let mut completed = stripe.pay(url(&begun));
        completed["data"]["object"]["amount_total"] = 1.into();
        tell(app, &completed).await.is(200);
        becomes(app, &order, &begun, "unpaid", "refunded").await;
        let second = start(app, 7, &order).await.is(201);
        let completed = stripe.pay(url(&second));
        tell(app, &completed).await.is(200);
        let part = json!({"id": "ch_2", "refunded": false, "amount_refunded": 5,
            "payment_intent": completed["data"]["object"]["payment_intent"], "metadata": {"payment_id": second["id"]}});
        tell(app, &event("charge.refunded", &part)).await.is(200);
        assert_eq!(standing(app, &order, &second).await, stand("paid", "succeeded"));
        app.balanced(id).await;
    }

    async fn only_stripe_is_believed(app, stripe) {
        let id = product(app, json!({})).await;
        let (order, begun) = begun(app, 7, id).await;
        let completed = stripe.pay(url(&begun));
        let (body, now) = (completed.to_string(), Timestamp::now().unix_ms() / 1000);
        let good = signature(ENDPOINT_SECRET, now, &body);
        for (signature, body) in [
            (signature("whsec_of_another_shop", now, &body), body.clone()),
            (signature(ENDPOINT_SECRET, now - 400, &body), body.clone()),
            (good.clone(), body.replace("\"paid\"", "\"pa1d\"")),
            (good.replace("v1=", "v0="), body.clone()),
            ("t=1".to_owned(), body.clone()),
        ] {
            tell_signed(app, &signature, body).await.is_problem(400, "invalid_signature");
        }
        let unsigned = app.client.request(Method::POST, "/payments/webhooks/stripe").body(body.clone());
        app.client.send(unsigned).await.is_problem(400, "invalid_signature");
        let other = app.client.request(Method::POST, "/payments/webhooks/external").header("stripe-signature", &good);
        app.client.send(other.body(body.clone())).await.is_problem(404, "not_found");
        let nonsense = "{}".to_owned();
        tell_signed(app, &signature(ENDPOINT_SECRET, now, &nonsense), nonsense).await.is_invalid("id");
        // Of something else that the account sells.
        tell(app, &event("checkout.session.completed", &json!({"id": "cs_9", "payment_status": "paid"}))).await.is(200);
        tell(app, &event("invoice.paid", &json!({}))).await.is(200);
        assert_eq!((standing(app, &order, &begun).await, events(app).await), (stand("unpaid", "pending"), 0));
        tell_signed(app, &good, body).await.is(200);
        assert_eq!(standing(app, &order, &begun).await, stand("paid", "succeeded"));
    }
}
