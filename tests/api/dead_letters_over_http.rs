//! Dead letters while servers run, as an administrator sees them.

use futures_util::future::join_all;
use reqwest::Method;
use seckill::app::RunningApp;
use seckill::config::Backend;
use seckill::model::{OrderId, Role};
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::broker::{Broker, message};
use crate::client::{Client, Reply};
use crate::on_both_backends;
use crate::support::eventually;

/// Sets messages aside, as an earlier process would have. The connection to a broker is to be kept until they are seen there.
async fn park(app: &mut TestApp, bodies: &[String]) -> Option<Broker> {
    if app.config.backend == Backend::Distributed {
        let broker = Broker::connect(&app.config.rabbitmq).await;
        for body in bodies {
            broker.publish(&format!("{}.dead", app.config.rabbitmq.queue), body.clone()).await;
        }
        return Some(broker);
    }
    app.stop().await;
    {
        use diesel::prelude::*;
        let file = app.config.embedded.data_dir.join("journal.db");
        let mut journal = diesel::SqliteConnection::establish(file.to_str().unwrap()).unwrap();
        for body in bodies {
            diesel::sql_query(
                "INSERT INTO dead (seq, body, reason, parked_at) \
                 SELECT COALESCE(MAX(seq), 1000) + 1, ?, 'because', 1800000000000 FROM dead",
            )
            .bind::<diesel::sql_types::Binary, _>(body.as_bytes())
            .execute(&mut journal)
            .unwrap();
        }
    }
    app.restart().await;
    None
}

async fn list(client: &Client, query: &str) -> Value {
    client.get(&format!("/admin/dead-letters{query}"), Some(&client.admin())).await.is(200)
}

async fn ids(client: &Client) -> Vec<String> {
    let items = list(client, "?limit=100").await["items"].clone();
    items.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

/// The ids of the letters with these bodies.
fn of_bodies(listed: &Value, bodies: &[String]) -> Vec<String> {
    let items = listed["items"].as_array().unwrap();
    let id =
        |body: &String| items.iter().find(|item| item["body"] == *body).unwrap()["id"].as_str().unwrap().to_owned();
    bodies.iter().map(id).collect()
}

async fn act(client: &Client, method: Method, path: &str) -> Reply {
    client.call(method, &format!("/admin/dead-letters/{path}"), Some(&client.admin()), None).await
}

async fn replay(client: &Client, id: &str) -> Reply {
    act(client, Method::POST, &format!("{id}/replay")).await
}

fn draw(product: i64) -> String {
    OrderId::draw(product.try_into().unwrap()).to_string()
}

on_both_backends! {
    async fn dead_letters_keep_their_ids_and_are_put_back_once_or_deleted(app) {
        let id = app.client.new_product(3).await;
        let orders: Vec<String> = (0..3).map(|_| draw(id)).collect();
        let first = message(id, 1, &[(orders[0].clone(), 7), (orders[1].clone(), 8)]);
        let second = message(id, 1, &[(orders[2].clone(), 9)]);
        let bodies = [first, second, "no purchases".to_owned()];
        let _broker = park(app, &bodies).await;
        eventually("all are set aside", || async { ids(&app.client).await.len() == 3 }).await;

        for refused in [Method::GET, Method::HEAD] {
            let reply = app.client.call(refused, "/admin/dead-letters", Some(&app.client.token(7, Role::Buyer)), None).await;
            assert_eq!(reply.status, 403);
        }
        app.client.get("/admin/dead-letters", None).await.is_problem(401, "unauthorized");
        let listed = list(&app.client, "?limit=100").await;
        let first = listed["items"].as_array().unwrap().iter().find(|item| item["body"] == bodies[0]).unwrap();
        assert_eq!((&first["product_id"], &first["purchases"]), (&json!(id), &json!(2)));
        assert_eq!((&listed["total"], &listed["next_cursor"]), (&json!(3), &Value::Null));
        let known = of_bodies(&listed, &bodies);
        // Page by page, and several at once: always the same.
        let (mut cursor, mut paged) = (String::new(), Vec::new());
        loop {
            let page = list(&app.client, &format!("?limit=1{cursor}")).await;
            paged.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let in_order = ids(&app.client).await;
        assert_eq!(paged, in_order);
        for seen in join_all((0..4).map(|_| ids(&app.client))).await {
            assert_eq!(seen, in_order);
        }
        app.client.get("/admin/dead-letters?cursor=x", Some(&app.client.admin())).await.is_invalid("cursor");

        for unknown in ["nobody", "0", "00001001", "%20"] {
            replay(&app.client, unknown).await.is_problem(404, "dead_letter_not_found");
            act(&app.client, Method::DELETE, unknown).await.is_problem(404, "dead_letter_not_found");
        }
        let replies = join_all((0..3).map(|_| replay(&app.client, &known[0]))).await;
        let (done, gone): (Vec<Reply>, Vec<Reply>) = replies.into_iter().partition(|reply| reply.status == 200);
        assert_eq!(done.len(), 1, "{done:?} {gone:?}");
        gone.iter().for_each(|reply| reply.is_problem(404, "dead_letter_not_found"));
        let purchases = done[0].body["purchases"].clone();
        for (place, user) in [7, 8].into_iter().enumerate() {
            let expected = json!({
                "order_id": orders[place], "user_id": user, "quantity": 1, "outcome": "put_back", "status": "unpaid", "reason": null
            });
            assert_eq!(purchases[place], expected, "{purchases}");
        }
        app.orders_written(id, 2).await;
        app.balanced(id).await;

        act(&app.client, Method::DELETE, &known[1]).await.is(204);
        act(&app.client, Method::DELETE, &known[1]).await.is_problem(404, "dead_letter_not_found");
        let unreadable = replay(&app.client, &known[2]).await.is(200);
        assert_eq!((&unreadable["purchases"], &unreadable["reason"]), (&json!([]), &json!("it cannot be read")));
        assert_eq!(ids(&app.client).await, known[2..], "it stays");
        app.restart().await;
        assert_eq!(ids(&app.client).await, known[2..]);
        app.orders_written(id, 2).await;

        let log = app.client.get("/admin/log", Some(&app.client.admin())).await.is(200)["items"].clone();
        let of = |what: &str| {
            let found = log.as_array().unwrap().iter().find(|entry| entry["action"] == what);
            found.unwrap_or_else(|| panic!("{what}: {log}")).clone()
        };
        let (put_back, deleted) = (of("Put a dead letter back"), of("Deleted a dead letter"));
        assert_eq!(put_back["object"], format!("dead letter {}", known[0]));
        assert_eq!(put_back["changes"], "purchases put back 2, decided before 0, kept 0");
        assert_eq!(deleted["changes"], format!("product {id}, orders {} of user 9", orders[2]));
    }

    /// Guards against: a unit that is promised twice, because what was set aside is written past the gate.
    async fn what_has_no_unit_any_more_stays_set_aside_and_the_gate_knows_the_others(app) {
        let id = app.client.new_product(3).await;
        app.client.buy(1, id).await.is(202);
        app.orders_written(id, 1).await;
        let written = app.stores.number("SELECT COUNT(*) AS n FROM orders").await;
        assert_eq!(written, 1);
        let orders: Vec<String> = (0..4).map(|_| draw(id)).collect();
        let items: Vec<(String, i64)> = orders.iter().cloned().zip([7, 1, 8, 9]).collect();
        let _broker = park(app, &[message(id, 1, &items)]).await;
        eventually("it is set aside", || async { ids(&app.client).await.len() == 1 }).await;
        let letter = ids(&app.client).await.remove(0);
        let purchases = replay(&app.client, &letter).await.is(200)["purchases"].clone();
        let outcomes: Vec<&Value> = purchases.as_array().unwrap().iter().map(|item| &item["outcome"]).collect();
        assert_eq!(outcomes, ["put_back", "kept", "put_back", "kept"], "{purchases}");
        assert!(purchases[1]["reason"].as_str().unwrap().contains("has bought again since"), "{purchases}");
        assert!(purchases[3]["reason"].as_str().unwrap().contains("was sold to somebody else"), "{purchases}");
        // The gate has them, before and after they are written.
        app.client.buy(10, id).await.is_problem(409, "sold_out");
        app.orders_written(id, 3).await;
        app.client.buy(11, id).await.is_problem(409, "sold_out");
        let rejected = "SELECT COUNT(*) AS n FROM orders WHERE status = 'rejected'";
        assert_eq!(app.stores.number(rejected).await, 0);
        app.balanced(id).await;
        let left = list(&app.client, "").await["items"][0].clone();
        assert_eq!(left["purchases"], 2);
        assert!(left["reason"].as_str().unwrap().contains(&orders[1]), "{left}");
        // Once there is a unit again, the one who waits for it gets it.
        let found = app.client.get(&format!("/orders/{}", orders[0]), Some(&app.client.buyer(7))).await.is(200);
        assert_eq!(found["status"], "unpaid");
        app.client.call(Method::POST, &format!("/orders/{}/cancel", orders[0]), Some(&app.client.buyer(7)), None).await.is(200);
        eventually("its unit is back", || async { app.client.product(id).await["remaining"] == 1 }).await;
        let again = replay(&app.client, left["id"].as_str().unwrap()).await.is(200)["purchases"].clone();
        assert_eq!((&again[0]["outcome"], &again[1]["outcome"]), (&json!("kept"), &json!("put_back")), "{again}");
        app.orders_written(id, 4).await;
        app.balanced(id).await;
    }
}

/// Guards against: two instances that each see only what the other has not taken out of the queue just then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_that_look_at_once_see_the_same() {
    TestApp::run(Backend::Distributed, async |app: &mut TestApp| {
        let id = app.client.new_product(100).await;
        let bodies: Vec<String> = (0..40).map(|user| message(id, 1, &[(draw(id), 7 + user)])).collect();
        let _broker = park(app, &bodies).await;
        eventually("all are set aside", || async { ids(&app.client).await.len() == 40 }).await;
        let known = ids(&app.client).await;
        let other = RunningApp::start(&app.config).await.unwrap();
        let beside = Client::new(other.address(), &app.config);
        for _ in 0..5 {
            let (here, there) = tokio::join!(ids(&app.client), ids(&beside));
            assert_eq!((&here, &there), (&known, &known));
        }
        let (here, there) = tokio::join!(replay(&app.client, &known[0]), replay(&beside, &known[0]));
        let mut statuses = [here.status, there.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404], "{here:?} {there:?}");
        app.orders_written(id, 1).await;
        other.stop().await;
    })
    .await;
}
