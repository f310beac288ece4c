//! `seckill backup` and `seckill restore`, and `seckill check-config`.

use std::fs;
use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use futures_util::future::join_all;
use seckill::app::RunningApp;
use seckill::config::Backend;

use crate::app::TestApp;
use crate::client::Client;
use crate::command::{Folder, fails, mode, seckill};
use crate::support::eventually;

fn on(data: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = seckill();
    command.env("SECKILL__EMBEDDED__DATA_DIR", data).args(arguments);
    command
}

fn succeeds(mut command: std::process::Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The database is held by somebody else, so that every promise is in the journal alone when the backup is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_taken_while_it_sells_loses_no_promise() {
    let folder = Folder::new();
    let file = folder.0.join("backup");
    let file_name = file.to_str().unwrap();
    TestApp::run(Backend::Embedded, async |app| {
        let data = app.config.embedded.data_dir.clone();
        let product = app.client.new_product(40).await;
        for user in 1..=10 {
            app.client.buy(user, product).await.is(202);
        }
        app.orders_written(product, 10).await;
        let mut held = SqliteConnection::establish(data.join("seckill.db").to_str().unwrap()).unwrap();
        held.batch_execute("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE").unwrap();
        let replies = join_all((11..=30).map(|user| app.client.buy(user, product))).await;
        let mut promised: Vec<String> =
            replies.into_iter().map(|reply| reply.is(202)["order_id"].as_str().unwrap().to_owned()).collect();

        let said = succeeds(on(&data, &["backup", file_name]));
        assert!(said.contains("no secret"), "{said}");
        held.batch_execute("ROLLBACK").unwrap();
        assert_eq!(mode(&file), 0o600);
        let again = fails(on(&data, &["backup", file_name]));
        assert!(again.contains("not written over") && again.lines().count() == 1, "{again}");

        let restored = folder.data();
        let said = succeeds(on(&restored, &["restore", file_name]));
        assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
        for name in ["seckill.db", "journal.db"] {
            assert_eq!(mode(&restored.join(name)), 0o600);
        }
        let mut config = app.config.clone();
        config.embedded.data_dir = restored.clone();
        let running = RunningApp::start(&config).await.expect("it starts on what was restored");
        let client = Client::new(running.address(), &config);
        eventually("it is ready", || async { client.get("/readyz", None).await.status == 200 }).await;
        promised.dedup();
        assert_eq!(promised.len(), 20);
        for (user, order) in (11..=30).zip(&promised) {
            let token = client.token(user, seckill::model::Role::Buyer);
            let order = client.get(&format!("/orders/{order}"), Some(&token)).await.is(200);
            assert_eq!(order["status"], "unpaid", "{order}");
        }
        assert_eq!(client.product(product).await["remaining"], 10, "ten in the database, twenty in the journal");
        client.buy(11, product).await.is_problem(409, "already_purchased");
        client.buy(31, product).await.is(202);
        running.stop().await;

        let again = fails(on(&restored, &["restore", file_name]));
        assert!(again.contains("seckill.db exists"), "{again}");
    })
    .await;
}

#[test]
fn a_mistyped_folder_and_a_file_that_is_no_backup_are_told_and_leave_nothing() {
    let folder = Folder::new();
    let file = folder.0.join("backup");
    let file_name = file.to_str().unwrap();
    let said = fails(on(&folder.data(), &["backup", file_name]));
    assert!(said.contains("embedded.data_dir") && !file.exists() && !folder.data().exists(), "{said}");
    fs::write(&file, "SQLite? no").unwrap();
    let said = fails(on(&folder.data(), &["restore", file_name]));
    assert!(said.contains("no backup"), "{said}");
    assert!(!folder.data().join("seckill.db").exists() && !folder.data().join("journal.db").exists());
}

#[test]
fn check_config_says_what_a_start_would_do_and_touches_nothing() {
    let folder = Folder::new();
    let said = succeeds(on(&folder.data(), &["check-config"]));
    for words in ["embedded", folder.data().to_str().unwrap(), "will be made", "127.0.0.1:8080", "valid"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!folder.data().exists());
    let with_database = |dsn: &str| {
        let mut command = on(&folder.data(), &["check-config"]);
        for (key, value) in [
            ("BACKEND", "distributed"),
            ("MYSQL__DSN", dsn),
            ("REDIS__PASSWORD", "hunter2"),
            ("RABBITMQ__URL", "amqp://u:hunter2@mq.example/%2f"),
            ("AUTH__JWT_SECRET", "hunter2hunter2hunter2hunter2hunter2"),
            ("ADMIN__PASSWORD", "hunter2 hunter2"),
        ] {
            command.env(format!("SECKILL__{key}"), value);
        }
        command
    };
    let said = succeeds(with_database("mysql://u:hunter2@db.example:3307/shop"));
    assert!(said.contains("db.example:3307/shop") && said.contains("mq.example:5672/%2f"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    for wrong in ["", "/", "/shop?no_such=1", "/shop?require_ssl=true"] {
        let said = fails(with_database(&format!("mysql://u:hunter2@db.example:3307{wrong}")));
        assert!(said.contains("mysql.dsn: ") && !said.contains("hunter2"), "{wrong}: {said}");
    }
    fs::create_dir(folder.data()).unwrap();
    fs::write(folder.data().join("jwt_secret"), "short\n").unwrap();
    let said = fails(on(&folder.data(), &["check-config"]));
    assert!(said.contains("jwt_secret") && said.contains("32 bytes"), "{said}");
    let mut command = on(&folder.data(), &["check-config"]);
    command.env("SECKILL__SERVER__PROT", "1");
    assert!(fails(command).contains("server.prot"));
}
