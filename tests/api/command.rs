//! The program as a process of its own, for what cannot be seen from inside: files, signals, what it prints.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const START_PATIENCE: Duration = Duration::from_secs(30);

/// The program, without what the environment says of the servers for tests.
pub fn seckill() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seckill"));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("SECKILL__") {
            command.env_remove(key);
        }
    }
    // No configuration file: the project's own lies in the folder that tests run in.
    command.current_dir(std::env::temp_dir()).env_remove("RUST_LOG");
    command
}

/// A folder that is gone afterwards.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("seckill-command-{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// The program on the embedded backend, with its data in here.
    pub fn embedded(&self) -> Command {
        let mut command = seckill();
        command.env("SECKILL__BACKEND", "embedded").env("SECKILL__EMBEDDED__DATA_DIR", self.data());
        command.env("SECKILL__AUTH__BCRYPT_COST", "4").env("SECKILL__LIMITS__AUTH_PER_MINUTE", "0");
        command
    }

    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server that runs, killed when dropped.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    folder: PathBuf,
}

impl Server {
    /// Starts it; does not wait.
    pub fn spawn(folder: &Folder, mut command: Command) -> Self {
        let address = free_address();
        let file = |name: &str| fs::File::create(folder.0.join(name)).unwrap();
        command.env("SECKILL__SERVER__PORT", address.port().to_string());
        command.arg("serve").stdin(Stdio::null()).stdout(file("out")).stderr(file("log"));
        Self { address, child: command.spawn().unwrap(), folder: folder.0.clone() }
    }

    /// Starts it and waits until it is ready.
    pub async fn start(folder: &Folder, command: Command) -> Self {
        let mut server = Self::spawn(folder, command);
        let begun = Instant::now();
        while server.get("/readyz").await.is_none_or(|(status, _)| status != 200) {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < START_PATIENCE, "{ended:?}: {}", server.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }

    pub fn out(&self) -> String {
        fs::read_to_string(self.folder.join("out")).unwrap()
    }

    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let reply = reqwest::get(format!("http://{}{path}", self.address)).await.ok()?;
        Some((reply.status().as_u16(), reply.text().await.ok()?))
    }

    /// The status of a log-in, and its token.
    pub async fn log_in(&self, name: &str, password: &str) -> (u16, Option<String>) {
        let request = reqwest::Client::new().post(format!("http://{}/login", self.address));
        let reply = request.json(&json!({"username": name, "password": password})).send().await.unwrap();
        let status = reply.status().as_u16();
        let body: Value = reply.json().await.unwrap();
        (status, body["access_token"].as_str().map(str::to_owned))
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// How it ended, which it must within this time.
    pub fn ended(&mut self, patience: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.signal(), None, "{status}");
                return status;
            }
            assert!(begun.elapsed() < patience, "still running after {patience:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What it ended with and wrote to standard error; it must end by itself.
pub fn fails(mut command: Command) -> String {
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}: {said}", begun.elapsed());
    said
}

pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Whether somebody listens there.
pub fn is_open(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// The rights of a file, as `chmod` writes them.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
