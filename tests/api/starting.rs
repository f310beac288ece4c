//! Starting and stopping, seen as an operator sees them.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant};

use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query, sql_types::Text};
use serde_json::Value;

use crate::command::{Folder, Server, fails, is_open, mode, seckill};

const PASSWORD: &str = "correct horse";

/// A server on the distributed backend whose database does not answer.
fn without_database() -> Command {
    let mut command = seckill();
    for (key, value) in [
        ("BACKEND", "distributed"),
        ("MYSQL__DSN", "mysql://seckill:hunter2@127.0.0.1:9/seckill"),
        ("REDIS__PASSWORD", "hunter2"),
        ("RABBITMQ__URL", "amqp://seckill:hunter2@127.0.0.1:9/%2f"),
        ("AUTH__JWT_SECRET", "hunter2hunter2hunter2hunter2hunter2"),
        ("ADMIN__PASSWORD", "hunter2 hunter2"),
    ] {
        command.env(format!("SECKILL__{key}"), value);
    }
    command
}

fn wait_for_log(server: &Server, words: &str) {
    let begun = Instant::now();
    while !server.log().contains(words) {
        assert!(begun.elapsed() < Duration::from_secs(20), "no `{words}` in {}", server.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn nothing_in_the_data_folder_is_for_others_and_no_core_is_dumped() {
    let folder = Folder::new();
    fs::DirBuilder::new().mode(0o755).create(folder.data()).unwrap();
    let mut server = Server::start(&folder, folder.embedded()).await;
    assert_eq!(mode(&folder.data()), 0o700);
    let mut files = 0;
    for entry in fs::read_dir(folder.data()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
        files += 1;
    }
    assert!(files >= 5, "databases, secrets and the lock");
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let core: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max core")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{core:?}");
    server.signal("HUP");
    assert!(server.ended(Duration::from_secs(15)).success(), "SIGHUP stops it as SIGTERM does");
    let log = server.log();
    // A stop is nothing that anybody must look after.
    assert!(log.contains("Stopped") && !log.contains("ERROR"), "{log}");
}

#[test]
fn a_data_folder_that_cannot_be_written_is_one_line() {
    let folder = Folder::new();
    fs::write(folder.0.join("file"), "").unwrap();
    let mut below_a_file = folder.embedded();
    below_a_file.env("SECKILL__EMBEDDED__DATA_DIR", folder.0.join("file/data"));
    let mut no_room = Command::new("sh");
    // What a full disk is to a program: each write fails.
    no_room.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\"", env!("CARGO_BIN_EXE_seckill")]);
    no_room.env("SECKILL__EMBEDDED__DATA_DIR", folder.data()).env("SECKILL__BACKEND", "embedded");
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("SECKILL__")) {
        no_room.env_remove(key);
    }
    no_room.env("SECKILL__EMBEDDED__DATA_DIR", folder.data()).env("SECKILL__SERVER__PORT", "0");
    no_room.current_dir(std::env::temp_dir());
    below_a_file.env("SECKILL__SERVER__PORT", "0");
    for (command, named) in [(below_a_file, "file/data"), (no_room, "data")] {
        let said = fails(command);
        let problems: Vec<&str> = said.lines().filter(|line| !line.contains(" INFO ")).collect();
        assert!(problems.len() == 1 && problems[0].contains(named), "{said}");
    }
}

#[test]
fn sigterm_while_starting_stops_at_once() {
    let folder = Folder::new();
    for signal in ["TERM", "INT", "HUP"] {
        let mut server = Server::spawn(&folder, without_database());
        wait_for_log(&server, "Starting seckill");
        // Longer than between two tries to reach the database.
        std::thread::sleep(Duration::from_millis(2_500));
        server.signal(signal);
        let status = server.ended(Duration::from_secs(3));
        let log = server.log();
        assert!(status.success(), "{signal}: {status} {log}");
        assert!(log.contains(&format!("before the start was done signal=\"SIG{signal}\"")), "{log}");
        assert_eq!(log.matches("The database cannot be used yet").count(), 1, "{log}");
        assert!(log.contains("127.0.0.1:9: Connection refused") && log.contains("start the database"), "{log}");
    }
}

#[test]
fn the_first_line_of_the_log_says_what_runs_on_what_and_no_secret() {
    let folder = Folder::new();
    let server = Server::spawn(&folder, without_database());
    wait_for_log(&server, "Starting seckill");
    let log = server.log();
    let first = log.lines().next().unwrap();
    for word in [env!("CARGO_PKG_VERSION"), "distributed", "127.0.0.1:9/seckill", "127.0.0.1:6379/0", "seckill.orders"]
    {
        assert!(first.contains(word), "{word}: {first}");
    }
    assert!(!log.contains("hunter2"), "{log}");
}

/// Guards against: `admin.password` changed in the configuration, a log-in that fails, and nothing that says why.
#[tokio::test]
async fn a_configured_password_that_is_not_the_administrators_is_said() {
    const SAID: &str = "admin.password is not this administrator's password";
    let folder = Folder::new();
    let with = |password: &str| {
        let mut command = folder.embedded();
        command.env("SECKILL__ADMIN__PASSWORD", password);
        command
    };
    let mut server = Server::start(&folder, with(PASSWORD)).await;
    server.signal("TERM");
    assert!(server.ended(Duration::from_secs(15)).success());
    let mut server = Server::start(&folder, with("another password")).await;
    wait_for_log(&server, SAID);
    let log = server.log();
    assert!(log.contains("seckill admin set-password") && !log.contains("another password"), "{log}");
    server.signal("TERM");
    assert!(server.ended(Duration::from_secs(15)).success());
    let mut server = Server::start(&folder, with(PASSWORD)).await;
    server.signal("TERM");
    // Whatever goes on in the background is over before the process ends.
    assert!(server.ended(Duration::from_secs(15)).success());
    assert!(!server.log().contains(SAID), "{}", server.log());
}

#[tokio::test]
async fn a_log_of_json_is_one_object_a_line() {
    let folder = Folder::new();
    let mut command = folder.embedded();
    command.env("SECKILL__LOG__FORMAT", "json").env("SECKILL__ADMIN__PASSWORD", PASSWORD);
    let mut server = Server::start(&folder, command).await;
    server.signal("TERM");
    assert!(server.ended(Duration::from_secs(15)).success());
    let log = server.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(lines[0]["message"], "Starting seckill", "{log}");
    assert_eq!(lines[0]["backend"], "embedded");
    assert_eq!(lines[0]["data_dir"], folder.data().to_str().unwrap());
    assert_eq!(lines.last().unwrap()["message"], "Stopped");
    assert!(!log.contains(PASSWORD));
}

#[tokio::test]
async fn readyz_says_503_before_a_stop_and_a_second_signal_ends_at_once() {
    let folder = Folder::new();
    let mut command = folder.embedded();
    command.env("SECKILL__SERVER__DRAIN_SECONDS", "60");
    let mut server = Server::start(&folder, command).await;
    server.signal("TERM");
    wait_for_log(&server, "serving on until");
    let (status, body) = server.get("/readyz").await.expect("it still serves");
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()["status"].as_str()), (503, Some("stopping")));
    assert_eq!(server.get("/products").await.map(|reply| reply.0), Some(200), "buyers are served as before");
    server.signal("INT");
    assert_eq!(server.ended(Duration::from_secs(2)).code(), Some(1));
}

#[tokio::test]
async fn a_drained_server_stops_by_itself() {
    let folder = Folder::new();
    let mut command = folder.embedded();
    command.env("SECKILL__SERVER__DRAIN_SECONDS", "1");
    let mut server = Server::start(&folder, command).await;
    let begun = Instant::now();
    server.signal("TERM");
    assert!(server.ended(Duration::from_secs(10)).success());
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_port_in_use_is_one_line_before_anything_slow() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = without_database();
    command.env("SECKILL__SERVER__PORT", &port);
    let said = fails(command);
    assert!(said.lines().count() == 1 && said.contains("server.port") && said.contains(&port), "{said}");
    let mut command = without_database();
    command.env("SECKILL__SERVER__PORT", "0").env("SECKILL__SERVER__ADMIN_PORT", &port);
    let said = fails(command);
    assert!(said.lines().count() == 1 && said.contains("server.admin_port") && said.contains(&port), "{said}");
}

#[derive(QueryableByName)]
struct Hash {
    #[diesel(sql_type = Text)]
    password_hash: String,
}

#[tokio::test]
async fn the_port_opens_only_when_the_administrator_exists() {
    let folder = Folder::new();
    let mut command = folder.embedded();
    // So that making the account takes long.
    command.env("SECKILL__AUTH__BCRYPT_COST", "11").env("SECKILL__ADMIN__PASSWORD", PASSWORD);
    let server = Server::spawn(&folder, command);
    let begun = Instant::now();
    while !is_open(server.address) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", server.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut conn = SqliteConnection::establish(folder.data().join("seckill.db").to_str().unwrap()).unwrap();
    let admin: Vec<Hash> =
        sql_query("SELECT password_hash FROM users WHERE username_key = 'admin'").load(&mut conn).unwrap();
    assert!(admin.len() == 1 && admin[0].password_hash.starts_with("$2"), "{}", server.log());
    assert_eq!(server.log_in("admin", PASSWORD).await.0, 200);
}

#[tokio::test]
async fn admin_password_is_kept_only_when_it_was_made_here_and_is_never_wrong() {
    let folder = Folder::new();
    let kept = folder.data().join("admin_password");
    // Configured: not written, not printed.
    let mut command = folder.embedded();
    command.env("SECKILL__ADMIN__PASSWORD", PASSWORD);
    let mut server = Server::start(&folder, command).await;
    assert_eq!(server.log_in("admin", PASSWORD).await.0, 200);
    server.signal("TERM");
    server.ended(Duration::from_secs(15));
    assert!(!kept.exists() && !server.out().contains(PASSWORD) && !server.log().contains(PASSWORD), "{}", server.out());

    // The account exists: no other password is made for it.
    let mut server = Server::start(&folder, folder.embedded()).await;
    assert_eq!(server.log_in("admin", PASSWORD).await.0, 200);
    server.signal("TERM");
    server.ended(Duration::from_secs(15));
    assert!(!kept.exists() && !server.out().contains("password"), "{}", server.out());

    // A false one, as the version before left it, is removed.
    fs::write(&kept, "0123456789abcdef0123\n").unwrap();
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o600)).unwrap();
    let mut server = Server::start(&folder, folder.embedded()).await;
    wait_for_log(&server, "Removed admin_password");
    server.signal("TERM");
    server.ended(Duration::from_secs(15));
    assert!(!kept.exists());
}

#[tokio::test]
async fn a_password_that_is_made_is_printed_kept_and_right() {
    let folder = Folder::new();
    let server = Server::start(&folder, folder.embedded()).await;
    let kept = fs::read_to_string(folder.data().join("admin_password")).unwrap();
    assert!(server.out().contains(kept.trim()), "{}", server.out());
    assert!(!server.log().contains(kept.trim()));
    assert_eq!(server.log_in("admin", kept.trim()).await.0, 200);
    drop(server);
    fs::write(folder.data().join("jwt_secret"), "short\n").unwrap();
    let mut command = folder.embedded();
    command.env("SECKILL__SERVER__PORT", "0");
    let said = fails(command);
    let problem = said.lines().last().unwrap();
    assert!(problem.contains("jwt_secret") && problem.contains("32 bytes"), "{said}");
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_no_error_of_ours() {
    use std::io::{Read, Write};
    let folder = Folder::new();
    let server = Server::start(&folder, folder.embedded()).await;
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"GET\r\n\r\n"] {
        let mut stream = std::net::TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.write_all(garbage).unwrap();
        let _ = stream.read(&mut [0; 512]);
    }
    let mut cut = std::net::TcpStream::connect(server.address).unwrap();
    cut.write_all(b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").unwrap();
    drop(cut);
    std::thread::sleep(Duration::from_millis(300));
    let log = server.log();
    assert!(!log.contains("ERROR") && !log.contains("WARN stream"), "{log}");
}

#[tokio::test]
async fn the_log_says_who_changed_what_and_nothing_of_a_purchase() {
    let folder = Folder::new();
    let mut command = folder.embedded();
    command.env("SECKILL__ADMIN__PASSWORD", PASSWORD).env("SECKILL__LOG__FORMAT", "json");
    let server = Server::start(&folder, command).await;
    let token = server.log_in("admin", PASSWORD).await.1.unwrap();
    let client = reqwest::Client::new();
    let send = async |method: &str, path: &str, body: Value| {
        let url = format!("http://{}{path}", server.address);
        let request = client.request(method.parse().unwrap(), url).bearer_auth(&token).json(&body);
        let reply = request.send().await.unwrap();
        assert!(reply.status().is_success(), "{method} {path}: {}", reply.text().await.unwrap());
        reply.json::<Value>().await.unwrap()
    };
    let new = serde_json::json!({"name": "lamp", "price_cents": 100, "stock": 5});
    let id = send("POST", "/products", new).await["id"].as_i64().unwrap();
    let path = format!("/products/{id}");
    send("PATCH", &path, serde_json::json!({"price_cents": 250, "name": "lamp 2"})).await;
    send("PATCH", &path, serde_json::json!({"paused": true})).await;
    send("PATCH", &path, serde_json::json!({"paused": false})).await;
    send("POST", &format!("{path}/restock"), serde_json::json!({"units": 3})).await;
    let before = server.log().lines().count();
    send("POST", &format!("/seckill/{id}"), serde_json::json!({})).await;
    let log = server.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (message, changes) in [
        ("Put a product on sale", "stock 5, price_cents 100"),
        ("Changed a product", r#"name "lamp" -> "lamp 2", price_cents 100 -> 250"#),
        ("Paused a product", "paused false -> true"),
        ("Resumed a product", "paused true -> false"),
        ("Restocked a product", "stock 5 -> 8"),
    ] {
        let line = lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("{message}: {log}"));
        assert!(line["changes"].as_str().unwrap().contains(changes), "{line}");
        assert_eq!(
            (&line["admin.name"], &line["object"]),
            (&"admin".into(), &format!("product {id}").into()),
            "{line}"
        );
    }
    assert_eq!(lines.len(), before, "a purchase writes no line: {log}");
}

fn set_password(mut command: Command, arguments: &[&str], password: &str) -> std::process::Output {
    use std::io::Write;
    command.args(["admin", "set-password"]).args(arguments).stdin(std::process::Stdio::piped());
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // It may have ended without reading.
    let _ = child.stdin.take().unwrap().write_all(password.as_bytes());
    child.wait_with_output().unwrap()
}

#[tokio::test]
async fn an_administrator_s_password_is_set_beside_a_running_server_and_from_no_command_line() {
    let folder = Folder::new();
    let server = Server::start(&folder, folder.embedded()).await;
    let kept = folder.data().join("admin_password");
    let first = fs::read_to_string(&kept).unwrap();
    assert_eq!(server.log_in("admin", first.trim()).await.0, 200);
    let done = set_password(folder.embedded(), &[], "a better password\n");
    assert!(done.status.success(), "{done:?}");
    let said = format!("{done:?}");
    assert!(!said.contains("a better password"), "{said}");
    assert_eq!(server.log_in("admin", "a better password").await.0, 200);
    assert_eq!(server.log_in("admin", first.trim()).await.0, 401);
    assert!(!kept.exists(), "what it says is not true any more");

    for (arguments, password, problem) in [
        (&["--username", "nobody"][..], "a better password\n", "no account named nobody"),
        (&[], "short\n", "password"),
        (&[], "", "no password"),
    ] {
        let refused = set_password(folder.embedded(), arguments, password);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.lines().count() == 1 && said.contains(problem), "{said}");
    }
    assert_eq!(server.log_in("admin", "a better password").await.0, 200, "a refusal changes nothing");
    let mut elsewhere = folder.embedded();
    elsewhere.env("SECKILL__EMBEDDED__DATA_DIR", folder.0.join("mistyped"));
    let refused = set_password(elsewhere, &[], "a better password\n");
    assert!(String::from_utf8(refused.stderr).unwrap().contains("embedded.data_dir"));
    assert!(!folder.0.join("mistyped").exists());
}
