//! `seckill dead-letters`, as an operator types it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use serde_json::{Value, json};

use crate::command::{Folder, Server, fails};

/// More than a pipe holds.
const LETTERS: usize = 3000;

fn dead_letters(folder: &Folder, arguments: &[&str]) -> Command {
    let mut command = folder.embedded();
    command.arg("dead-letters").args(arguments);
    command
}

fn prints(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn listed(folder: &Folder) -> Vec<Value> {
    let lines = prints(dead_letters(folder, &["list"]));
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn park(folder: &Folder) {
    let file = folder.data().join("journal.db");
    let mut journal = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    let rows = format!(
        "INSERT INTO dead (seq, body, reason, parked_at) WITH RECURSIVE number(n) AS \
         (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {LETTERS}) \
         SELECT n, CAST('{{\"v\":1,\"product_id\":7,\"items\":[1,2]}}' AS BLOB), 'because', 1800000000000 FROM number;"
    );
    journal.batch_execute(&rows).unwrap();
}

#[tokio::test]
async fn dead_letters_are_listed_and_chosen_by_their_ids() {
    let folder = Folder::new();
    let said = fails(dead_letters(&folder, &["list"]));
    assert!(said.contains("embedded.data_dir") && !folder.data().exists(), "a mistyped folder is not made: {said}");

    let mut server = Server::start(&folder, folder.embedded()).await;
    let said = fails(dead_letters(&folder, &["list"]));
    assert!(said.contains("another process uses the data folder"), "{said}");
    server.signal("TERM");
    assert!(server.ended(Duration::from_secs(15)).success());
    assert_eq!(listed(&folder), [] as [Value; 0]);

    park(&folder);
    let letters = listed(&folder);
    assert_eq!(letters.len(), LETTERS);
    let first = &letters[0];
    assert_eq!(
        (&first["id"], &first["reason"], &first["product_id"], &first["purchases"]),
        (&json!("1"), &json!("because"), &json!(7), &json!(2))
    );
    assert_eq!(first["parked_at"], "2027-01-15T08:00:00.000Z");

    let said = fails(dead_letters(&folder, &["drop", "--yes", "1", "nobody"]));
    assert!(said.contains("no dead letter nobody; nothing was done"), "{said}");
    for careless in [&["drop", "--yes"][..], &["replay"], &["drop", "1"], &["replay", "--all", "1"]] {
        assert_eq!(dead_letters(&folder, careless).output().unwrap().status.code(), Some(2), "{careless:?}");
    }
    assert_eq!(listed(&folder).len(), LETTERS);
    assert_eq!(prints(dead_letters(&folder, &["drop", "--yes", "1", "3"])), "2 dropped\n");
    assert_eq!(prints(dead_letters(&folder, &["replay", "2"])), "1 put back\n");
    assert_eq!(listed(&folder)[0]["id"], "4");
    assert_eq!(prints(dead_letters(&folder, &["drop", "--yes", "--all"])), format!("{} dropped\n", LETTERS - 3));
    assert_eq!(listed(&folder), [] as [Value; 0]);
}

/// Guards against: a panic where `head` has read enough.
#[tokio::test]
async fn whoever_reads_the_list_may_stop_before_its_end() {
    let folder = Folder::new();
    let mut server = Server::start(&folder, folder.embedded()).await;
    server.signal("TERM");
    assert!(server.ended(Duration::from_secs(15)).success());
    prints(dead_letters(&folder, &["list"]));
    park(&folder);
    let mut list = dead_letters(&folder, &["list"]);
    let mut list = list.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(64, list.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut said = String::new();
    list.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(list.wait().unwrap().success(), "{said}");
    assert_eq!(said, "");
}
