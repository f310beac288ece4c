//! Starts the application for a test, on stores of its own, and takes everything away afterwards.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use seckill::app::RunningApp;
use seckill::config::{Backend, Config};

use crate::client::Client;
use crate::support::{Stores, eventually};

/// An application under test.
pub struct TestApp {
    pub client: Client,
    pub stores: Stores,
    pub config: Config,
    running: Option<RunningApp>,
}

impl TestApp {
    /// Runs `test` on a new application and checks that it can be stopped afterwards.
    pub async fn run(backend: Backend, test: impl AsyncFnOnce(&mut TestApp)) {
        Self::run_with(backend, |_| {}, test).await;
    }

    /// Such a test on each backend, one after the other, with another configuration.
    pub async fn on_both(configure: fn(&mut Config), test: impl AsyncFn(&mut Self)) {
        for backend in [Backend::Embedded, Backend::Distributed] {
            Self::run_with(backend, configure, &test).await;
        }
    }

    /// Such a test on one of them, with another configuration.
    pub async fn run_with(backend: Backend, configure: impl FnOnce(&mut Config), test: impl AsyncFnOnce(&mut TestApp)) {
        let stores = Stores::new(backend).await;
        let mut config = stores.config();
        configure(&mut config);
        let running = RunningApp::start(&config).await.expect("the application starts");
        let client = Client::new(running.admin_address(), &config);
        let mut app = Self { client, stores, config, running: Some(running) };
        app.ready().await;
        let outcome = AssertUnwindSafe(test(&mut app)).catch_unwind().await;
        // A test that failed leaves nothing behind either: neither what runs nor its stores.
        let stopped = AssertUnwindSafe(app.stop()).catch_unwind().await;
        app.stores.remove().await;
        if let Err(panic) = outcome.and(stopped) {
            resume_unwind(panic);
        }
    }

    /// Who knows the port of buyers only, where there are two.
    pub fn client_of_buyers(&self) -> Client {
        Client::new(self.running.as_ref().expect("it runs").address(), &self.config)
    }

    /// Stops the application as a signal would.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let begun = Instant::now();
            running.stop().await;
            assert!(begun.elapsed() < Duration::from_secs(15), "stopping took {:?}", begun.elapsed());
        }
    }

    /// Stops the application and starts it anew on the same stores.
    pub async fn restart(&mut self) {
        self.stop().await;
        let running = RunningApp::start(&self.config).await.expect("the application starts again");
        self.client = Client::new(running.admin_address(), &self.config);
        self.running = Some(running);
        self.ready().await;
    }

    /// Waits until the application says that it is ready.
    pub async fn ready(&self) {
        eventually("the application is ready", || async { self.client.get("/readyz", None).await.status == 200 }).await;
    }

    /// Waits until this many orders of a product are in the database and nothing of it is on its way any more, and checks
    /// that there are no more then.
    pub async fn orders_written(&self, product: i64, count: i64) {
        let query = format!("SELECT COUNT(*) AS n FROM orders WHERE product_id = {product}");
        eventually(&format!("{count} orders of product {product} are written"), || async {
            self.stores.number(&query).await >= count
        })
        .await;
        if self.running.is_none() {
            // It was stopped, which leaves nothing on its way in this process; another one may be at work.
            assert_eq!(self.stores.number(&query).await, count);
            return;
        }
        // More can come until nothing is in flight.
        let (path, admin) = (format!("/admin/products/{product}/audit"), self.client.admin());
        eventually(&format!("nothing of product {product} is on its way"), || async {
            let audit = self.client.get(&path, Some(&admin)).await;
            audit.status == 200 && audit.is(200)["pending"] == 0
        })
        .await;
        assert_eq!(self.stores.number(&query).await, count);
    }

    /// Checks that gate and database agree: what is not sold remains (I3), nothing is sold twice (I1, I4).
    pub async fn balanced(&self, product: i64) {
        let units = "CAST(COALESCE(SUM(quantity), 0) AS SIGNED) AS n";
        let live = format!("SELECT {units} FROM orders WHERE product_id = {product} AND live_user IS NOT NULL");
        let of = |column: &str| format!("SELECT {column} AS n FROM products WHERE id = {product}");
        let live = self.stores.number(&live).await;
        let stock = self.stores.number(&of("stock - withheld")).await;
        assert_eq!(self.stores.number(&of("sold")).await, live, "units sold and units of live orders");
        assert!(live <= stock, "{live} units sold of {stock}");
        eventually("the gate shows what the database has left", || async {
            self.client.product(product).await["remaining"] == stock - live
        })
        .await;
    }
}
