use std::time::{Duration, Instant};

use seckill::config::Backend;
use seckill::db::{Db, DbError, Knows, NewDeadline, NewKey, NewProduct, ProductChange};
use seckill::model::{Life, ProductId, Purchase, PurchaseGroup, Quantity, Role, Timestamp, Username};
use seckill::services::KnownProducts;

use crate::support::Stores;
use crate::{on_both_backends, product, purchase, user};

const PRICE_CENTS: i64 = 19_900;

pub async fn database(stores: &Stores) -> Db {
    let config = stores.config();
    match config.backend {
        Backend::Embedded => {
            std::fs::create_dir_all(&config.embedded.data_dir).unwrap();
            let file = config.embedded.data_dir.join("seckill.db");
            Db::migrate_sqlite(&file).await.unwrap();
            Db::sqlite(&file)
        }
        Backend::Distributed => {
            Db::migrate_mysql(&config.mysql).await.unwrap();
            Db::mysql(&config.mysql)
        }
    }
}

pub async fn new_product(db: &Db, stock: i64) -> ProductId {
    let row = NewProduct {
        paused: false,
        draft: false,
        name: "Sneaker".to_owned(),
        description: "größer · 更大".to_owned(),
        price_cents: PRICE_CENTS,
        stock,
        starts_at: Timestamp::now(),
        ends_at: None,
        created_at: Timestamp::now(),
        currency: "EUR".try_into().unwrap(),
        payment_window: 900.try_into().ok(),
        max_per_order: Quantity::ONE,
        max_per_address: None,
        image_url: None,
    };
    db.transaction(move |conn| Box::pin(async move { conn.insert_product(&row).await })).await.unwrap()
}

pub async fn sell(db: &Db, product_id: ProductId, epoch: i64, items: &[Purchase]) -> bool {
    db.sell(vec![PurchaseGroup { product_id, epoch, revision: None, items: items.to_vec(), traced: Vec::new() }], None)
        .await
        .unwrap()
}

/// Units sold by the product's row, live orders, and how many users hold them.
async fn sold(stores: &Stores, id: ProductId) -> (i64, i64, i64) {
    let live = format!("FROM orders WHERE product_id = {id} AND live_user IS NOT NULL");
    (
        stores.number(&format!("SELECT sold AS n FROM products WHERE id = {id}")).await,
        stores.number(&format!("SELECT COUNT(*) AS n {live}")).await,
        stores.number(&format!("SELECT COUNT(DISTINCT user_id) AS n {live}")).await,
    )
}

on_both_backends! {
    async fn an_order_of_several_units_takes_them_all_or_none(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 5).await;
        let of = |user: i64, units: i64| Purchase { quantity: units.try_into().unwrap(), ..purchase(user) };
        assert!(sell(&db, id, 1, &[of(1, 2), of(2, 1)]).await);
        assert!(!sell(&db, id, 1, &[of(3, 3)]).await, "two units are left");
        assert!(sell(&db, id, 1, &[of(4, 2)]).await);
        assert_eq!(sold(stores, id).await, (5, 3, 3));
        let sum = format!("SELECT CAST(SUM(quantity) AS SIGNED) AS n FROM orders WHERE product_id = {id}");
        assert_eq!(stores.number(&sum).await, 5);
        let page = db.read(move |conn| Box::pin(conn.live_orders_page(id, 0, 10))).await.unwrap().0;
        let mut quantities: Vec<_> = page.iter().map(|life| (life.purchase.user_id.get(), life.purchase.quantity.get())).collect();
        quantities.sort();
        assert_eq!(quantities, [(1, 2), (2, 1), (4, 2)]);
        let audit = db.read(move |conn| Box::pin(conn.audit_sale(id))).await.unwrap().unwrap();
        assert_eq!((audit.live_orders, audit.live_units, audit.sold), (3, 5, 5));
    }

    async fn migrating_again_changes_nothing(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 1).await;
        let again = database(stores).await;
        assert!(again.read(move |conn| Box::pin(conn.find_product(id))).await.unwrap().is_some());
    }

    async fn a_row_comes_back_as_it_went_in(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 3).await;
        let row = db.read(move |conn| Box::pin(conn.find_product(id))).await.unwrap().unwrap();
        assert_eq!((row.description.as_str(), row.stock, row.sold, row.revision), ("größer · 更大", 3, 0, 1));
        assert_eq!((row.gate_epoch, row.gate_fence, row.paused, row.ends_at), (1, 1, false, None));
        let whole_second = Timestamp::from_unix_ms(1_800_000_000_000).unwrap();
        let change = ProductChange { starts_at: Some(whole_second), ends_at: Some(Some(Timestamp::now())), ..Default::default() };
        let ends = change.ends_at.flatten();
        assert!(db.transaction(move |conn| Box::pin(async move { conn.update_product(id, &change, None).await })).await.unwrap());
        let row = db.read(move |conn| Box::pin(conn.find_product(id))).await.unwrap().unwrap();
        assert_eq!((row.starts_at, row.ends_at, row.revision), (whole_second, ends, 2));
    }

    async fn stock_and_orders_go_together(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 3).await;
        assert!(sell(&db, id, 1, &[purchase(1), purchase(2)]).await);
        assert_eq!(sold(stores, id).await, (2, 2, 2));
        assert!(!sell(&db, id, 1, &[purchase(3), purchase(4)]).await, "one unit remains, not two");
        assert_eq!(sold(stores, id).await, (2, 2, 2));
    }

    async fn nothing_is_sold_when_one_purchase_cannot_be(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 10).await;
        let first = purchase(1);
        assert!(sell(&db, id, 1, &[first]).await);
        for (items, why) in [
            (vec![purchase(2), purchase(1)], "another live order of the buyer"),
            (vec![purchase(2), first], "the same order again"),
            (vec![purchase(2), purchase(2)], "a buyer twice in a group"),
        ] {
            assert!(!sell(&db, id, 1, &items).await, "{why}");
            assert_eq!(sold(stores, id).await, (1, 1, 1), "{why}");
        }
        assert!(!sell(&db, id, 0, &[purchase(2)]).await, "an older epoch");
        assert!(!sell(&db, product(999), 1, &[purchase(2)]).await, "no such product");
        assert_eq!(sold(stores, id).await, (1, 1, 1));
    }

    async fn several_products_are_sold_together_or_not_at_all(stores) {
        let db = database(stores).await;
        let (one, other) = (new_product(&db, 2).await, new_product(&db, 1).await);
        let group = |product_id, users: &[i64]| PurchaseGroup {
            product_id,
            epoch: 1,
            revision: None,
            items: users.iter().map(|user| purchase(*user)).collect(),
            traced: Vec::new(),
        };
        for (groups, why) in [
            (vec![group(one, &[1]), group(other, &[1, 2])], "one of them has too few units"),
            (vec![group(one, &[1]), group(product(999), &[1])], "one of them does not exist"),
            (vec![group(one, &[1]), PurchaseGroup { epoch: 0, ..group(other, &[1]) }], "one epoch is over"),
            (vec![group(one, &[1]), group(one, &[2])], "a product twice"),
            (vec![group(other, &[1]), group(one, &[1])], "not in the order of the products"),
        ] {
            assert!(!db.sell(groups, None).await.unwrap(), "{why}");
            assert_eq!((sold(stores, one).await, sold(stores, other).await), ((0, 0, 0), (0, 0, 0)), "{why}");
        }
        let orders = vec![group(one, &[2, 1]), group(other, &[3])];
        let ids: Vec<_> = orders.iter().flat_map(|group| group.items.iter().map(|item| item.order_id)).collect();
        assert!(db.sell(orders, None).await.unwrap());
        assert_eq!((sold(stores, one).await, sold(stores, other).await), ((2, 2, 2), (1, 1, 1)));
        for (order_id, buyer, product_id) in [(ids[0], 2, one), (ids[1], 1, one), (ids[2], 3, other)] {
            let order = db.read(move |conn| Box::pin(conn.find_order(order_id))).await.unwrap().unwrap();
            assert_eq!((order.user_id, order.product_id, order.price_cents), (user(buyer), product_id, PRICE_CENTS));
            assert_eq!(order.created_at, order_id.drawn_at());
        }
    }

    /// Where to look for unpaid orders is noted with them, or not at all.
    async fn a_deadline_is_noted_together_with_its_orders(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 2).await;
        let group = |user| PurchaseGroup { product_id: id, epoch: 1, revision: None, items: vec![purchase(user)], traced: Vec::new() };
        let noted = "SELECT COUNT(*) AS n FROM payment_deadlines";
        for (user, sells, notes) in [(1, true, 1), (1, false, 1), (2, true, 2), (3, false, 2)] {
            let group = group(user);
            let order = group.items[0].order_id;
            let due_at = Timestamp::now().after(Duration::from_secs(60));
            let deadline = NewDeadline::new(order, order, due_at);
            assert_eq!(db.sell(vec![group], Some(deadline)).await.unwrap(), sells, "user {user}");
            assert_eq!(stores.number(noted).await, notes, "user {user}");
        }
        let (due_at, now) = db.read(|conn| Box::pin(conn.next_deadline())).await.unwrap().unwrap();
        assert!(due_at > now.after(Duration::from_secs(30)) && due_at < now.after(Duration::from_secs(90)));
    }

    /// The price is that of the revision at the click, whatever became of the product until the order is written.
    async fn an_order_has_the_price_of_the_revision_it_was_bought_under(stores) {
        let db = database(stores).await;
        let (one, other) = (new_product(&db, 10).await, new_product(&db, 10).await);
        for price_cents in [5, 7] {
            let change = ProductChange { price_cents: Some(price_cents), ..Default::default() };
            for id in [one, other] {
                let change = change.clone();
                db.transaction(move |conn| Box::pin(async move { conn.update_product(id, &change, None).await })).await.unwrap();
            }
        }
        let buy = |product_id, revision: Option<i64>, buyer| {
            let revision = revision.map(|revision| revision.try_into().unwrap());
            PurchaseGroup { product_id, epoch: 1, revision, items: vec![purchase(buyer)], traced: Vec::new() }
        };
        // No revision: a message of an earlier version. Revision 9 was made by a program that kept none.
        let expected = [(Some(1), PRICE_CENTS, 1), (Some(2), 5, 2), (Some(3), 7, 3), (None, 7, 3), (Some(9), 7, 3)];
        for (buyer, (revision, price, named)) in (1..).zip(expected) {
            let groups = vec![buy(one, revision, buyer), buy(other, Some(2), buyer)];
            let orders = [groups[0].items[0].order_id, groups[1].items[0].order_id];
            assert!(db.sell(groups, None).await.unwrap());
            for (order_id, bought) in orders.into_iter().zip([(price, named), (5, 2)]) {
                let of = |column| format!("SELECT {column} AS n FROM orders WHERE id = X'{}'", order_id.to_string().replace('-', ""));
                let written = (stores.number(&of("price_cents")).await, stores.number(&of("revision")).await);
                assert_eq!(written, bought, "{revision:?}");
            }
        }
    }

    /// Programs of the version before go on for a while beside this one, and keep nothing of what they change.
    async fn what_a_program_without_revisions_changed_is_kept_before_the_next_change(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 1).await;
        stores.execute(&format!("UPDATE products SET name = 'Boot', price_cents = 5, ver = 2 WHERE id = {id}")).await;
        let change = ProductChange { price_cents: Some(6), ..Default::default() };
        db.transaction(move |conn| Box::pin(async move { conn.update_product(id, &change, None).await })).await.unwrap();
        db.transaction(move |conn| Box::pin(async move { conn.add_stock(id, 5, 100).await })).await.unwrap();
        // 0 and 2 are what the other program left.
        let rows = [(0, 5), (1, PRICE_CENTS), (2, 5), (3, 6), (4, 6)];
        for (revision, price) in rows {
            let kept = format!("SELECT COUNT(*) AS n FROM product_revisions WHERE revision = {revision} AND price_cents = {price}");
            assert_eq!(stores.number(&kept).await, 1, "{revision}");
        }
        assert_eq!(stores.number("SELECT COUNT(*) AS n FROM product_revisions").await, rows.len() as i64);
    }

    /// Guards against: a dead order that stands in the way of the next one (peers 11).
    async fn only_live_orders_exclude_each_other(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 10).await;
        assert!(sell(&db, id, 1, &[purchase(1)]).await);
        for status in ["cancelled", "expired", "rejected"] {
            let dead = format!("UPDATE orders SET status = '{status}', live_user = NULL WHERE live_user = 1");
            stores.execute(&dead).await;
            assert!(sell(&db, id, 1, &[purchase(1)]).await, "{status}");
        }
        assert_eq!(stores.number("SELECT COUNT(*) AS n FROM orders").await, 4);
    }

    /// Guards against: stock taken unconditionally, and no unique index (peers 12).
    async fn the_schema_itself_refuses_to_oversell(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 1).await;
        // No query of ours would ask for this: the row's own check is the last line.
        for sold in [2, -1] {
            let statement = format!("UPDATE products SET sold = {sold} WHERE id = {id}");
            assert!(stores.try_execute(&statement).await.is_err(), "{sold}");
        }
    }

    async fn a_transaction_that_fails_leaves_nothing(stores) {
        let db = database(stores).await;
        let name = Username::parse("alice").unwrap();
        let failed: Result<(), DbError> = db
            .transaction(move |conn| {
                Box::pin(async move {
                    conn.insert_user(&name, "hash", Role::Buyer).await?;
                    conn.insert_user(&name, "hash", Role::Buyer).await?;
                    Ok(())
                })
            })
            .await;
        assert!(matches!(failed, Err(DbError::Duplicate(_))), "{failed:?}");
        assert_eq!(stores.number("SELECT COUNT(*) AS n FROM users").await, 0);
    }

    async fn many_sellers_at_once_sell_exactly_the_stock(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 40).await;
        let sellers = (0..16).map(|seller| {
            let db = db.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let item = purchase(1 + seller * 10 + round);
                    let group = PurchaseGroup { product_id: id, epoch: 1, revision: None, items: vec![item], traced: Vec::new() };
                    while let Err(error) = db.sell(vec![group.clone()], None).await {
                        assert!(error.is_transient(), "{error}");
                    }
                }
            })
        });
        for seller in futures_util::future::join_all(sellers).await {
            seller.unwrap();
        }
        assert_eq!(sold(stores, id).await, (40, 40, 40));
    }

    /// Guards against: keys that pile up for ever (issue 14, 10).
    async fn old_keys_are_forgotten_and_young_ones_are_not(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 1).await;
        for place in 0..25 {
            let key = NewKey { user_id: user(1), key: format!("key-{place}"), request_hash: vec![7; 32] };
            db.transaction(move |conn| Box::pin(async move { conn.insert_key(&key, id).await })).await.unwrap();
        }
        stores
            .execute("UPDATE idempotency_keys SET created_at = '2026-01-01 00:00:00.000' WHERE idempotency_key <> 'key-3'")
            .await;
        let before = Timestamp::now().before(std::time::Duration::from_secs(3600));
        let forget = || db.transaction(move |conn| Box::pin(async move { conn.forget_keys(before, 10).await }));
        // Two instances at once.
        let (one, other) = tokio::join!(forget(), forget());
        assert_eq!(one.unwrap() + other.unwrap() + forget().await.unwrap() + forget().await.unwrap(), 24);
        assert_eq!(stores.number("SELECT COUNT(*) AS n FROM idempotency_keys").await, 1);
    }

    /// Guards against: one query for all orders of a sale (issue 14, 17).
    async fn live_orders_come_in_pages_and_each_once(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 100).await;
        let other = new_product(&db, 100).await;
        let mut bought: Vec<Purchase> = (1..=50).rev().map(purchase).collect();
        assert!(sell(&db, id, 1, &bought).await);
        assert!(sell(&db, other, 1, &(60..70).map(purchase).collect::<Vec<_>>()).await);
        stores.execute("UPDATE orders SET status = 'cancelled', live_user = NULL WHERE user_id = 25").await;
        bought.retain(|purchase| purchase.user_id != user(25));
        let (mut cursor, mut found, mut pages) = (0, Vec::new(), 0);
        loop {
            let page = db.read(move |conn| Box::pin(conn.live_orders_page(id, cursor, 7)));
            let (lives, next) = page.await.unwrap();
            found.extend(lives);
            pages += 1;
            match next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        found.sort_by_key(|life| life.purchase.user_id);
        bought.sort_by_key(|purchase| purchase.user_id);
        assert_eq!((found, pages), (bought.into_iter().map(Life::from).collect(), 8));
    }

    /// A query each would take seconds.
    async fn product_ids_that_nobody_gave_out_cost_no_query(stores) {
        let db = database(stores).await;
        let id = new_product(&db, 1).await;
        let known = KnownProducts::new(db.clone());
        assert!(known.may_exist(id).await.unwrap());
        let begun = Instant::now();
        for invented in 0..20_000 {
            assert!(!known.may_exist(product(id.get() + 1 + invented)).await.unwrap());
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        // Another instance makes one.
        let next = new_product(&db, 1).await;
        tokio::time::sleep(Duration::from_millis(120)).await;
        assert!(known.may_exist(next).await.unwrap());
        known.missed(id);
        assert!(!known.may_exist(id).await.unwrap());
    }

    async fn orders_are_listed_newest_first(stores) {
        let db = database(stores).await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            let id = new_product(&db, 1).await;
            let mine = purchase(7);
            assert!(sell(&db, id, 1, &[mine]).await);
            ids.insert(0, mine.order_id);
        }
        let list = |before, limit| db.read(move |conn| Box::pin(async move { conn.list_orders(user(7), before, limit).await }));
        let of = |listed: seckill::db::Readable<seckill::model::Order, _>| listed.rows.into_iter().map(|order| order.id).collect::<Vec<_>>();
        assert_eq!(of(list(None, 2).await.unwrap()), ids[..2]);
        assert_eq!(of(list(Some(ids[1]), 2).await.unwrap()), ids[2..]);
    }

    /// A file has one process. Guards against: messages of a form that the instance which consumes sets aside.
    async fn what_an_instance_of_the_version_before_does_not_know_is_not_used_while_it_runs(stores) {
        let db = database(stores).await;
        let all_know = async |what| {
            db.read(move |conn| Box::pin(async move { conn.all_instances_know(what).await })).await.unwrap()
        };
        assert!(all_know(Knows::Bundles).await);
        if stores.config().backend == Backend::Embedded {
            return;
        }
        let older = "INSERT INTO instances (id, redis_name, queue_name, protocol, seen_at) \
                     VALUES ('older', 'x', 'x', 2, UTC_TIMESTAMP(3) - INTERVAL 9 MINUTE)";
        stores.execute(older).await;
        assert!(!all_know(Knows::Bundles).await);
        assert!(all_know(Knows::LatePayments).await);
        stores.execute("UPDATE instances SET seen_at = UTC_TIMESTAMP(3) - INTERVAL 11 MINUTE").await;
        assert!(all_know(Knows::Bundles).await, "it has died");
    }
}
