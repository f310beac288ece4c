//! The tests' own: what a test that fails leaves behind.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use seckill::config::Backend;

use crate::app::TestApp;
use crate::support::Stores;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_that_panics_leaves_no_stores() {
    let mut folder = None;
    let failing = TestApp::run(Backend::Embedded, async |app| {
        folder = Some(app.config.embedded.data_dir.clone());
        panic!("on purpose");
    });
    assert!(AssertUnwindSafe(failing).catch_unwind().await.is_err(), "the panic is passed on");
    assert!(!folder.unwrap().exists());

    let stores = Stores::new(Backend::Embedded).await;
    let folder = stores.config().embedded.data_dir;
    std::fs::create_dir(&folder).unwrap();
    drop(stores);
    assert!(!folder.exists(), "whoever forgets them, or unwinds past them");
}
