//! `seckill admin set-password`: another password for an account, on both backends, also while servers run.
//!
//! The password comes from standard input, never from the command line, which every user of the machine can read.

use std::io::{BufRead, IsTerminal, Read, Write, stderr, stdin};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret, SecretString};

use crate::config::{self, Backend, Config};
use crate::data_dir::{ADMIN_PASSWORD, DataDir, database_in, forget_secret};
use crate::db::{Db, DbError};
use crate::model::Username;

/// More than any password has.
const LINE_MOST_BYTES: u64 = 4096;

pub(super) async fn run(config: &Config, username: Option<String>) -> Result<(), String> {
    let username = username.unwrap_or_else(|| config.admin.username.clone());
    let name = Username::parse(&username).map_err(|problem| format!("username: {problem}"))?;
    let db = open(config).await?;
    let password = ask().await?;
    config::check_password(password.expose_secret()).map_err(|problem| format!("password: {problem}"))?;
    let cost = config.auth.bcrypt_cost;
    let hash = tokio::task::spawn_blocking(move || bcrypt::hash(password.expose_secret(), cost));
    let hash = hash.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let wanted = name.clone();
    let found = db
        .transaction::<_, DbError, _>(move |conn| {
            Box::pin(async move {
                let Some(account) = conn.find_user_by_name(&wanted).await? else { return Ok(false) };
                conn.set_password(account.id, &hash).await?;
                Ok(true)
            })
        })
        .await
        .map_err(|error| format!("database: {error}"))?;
    if !found {
        return Err(format!("there is no account named {}", name.as_str()));
    }
    if config.backend == Backend::Embedded && name.as_str().eq_ignore_ascii_case(&config.admin.username) {
        forget_secret(&config.embedded.data_dir, ADMIN_PASSWORD)?;
    }
    println!("{} has a new password", name.as_str());
    Ok(())
}

/// The folder is not locked: a server may be running on it. If none is, the schema is brought up to date first.
async fn open(config: &Config) -> Result<Db, String> {
    match config.backend {
        Backend::Distributed => Ok(Db::mysql(&config.mysql)),
        Backend::Embedded => {
            let folder = &config.embedded.data_dir;
            let file = database_in(folder);
            if !file.is_file() {
                return Err(format!("there is no {}; is embedded.data_dir the folder of the server?", file.display()));
            }
            if let Ok(_unused) = DataDir::lock(folder) {
                Db::migrate_sqlite(&file).await.map_err(|error| format!("database: {error}"))?;
            }
            Ok(Db::sqlite(&file))
        }
    }
}

async fn ask() -> Result<SecretString, String> {
    if !stdin().is_terminal() {
        return line().await;
    }
    let _quiet = Quiet::begin()?;
    let first = prompted("New password: ").await?;
    let second = prompted("Once more: ").await?;
    match first.expose_secret() == second.expose_secret() {
        true => Ok(first),
        false => Err("the two are not the same".to_owned()),
    }
}

async fn prompted(prompt: &str) -> Result<SecretString, String> {
    let _ = write!(stderr(), "{prompt}").and_then(|()| stderr().flush());
    let line = tokio::select! {
        line = line() => line,
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
    };
    let _ = writeln!(stderr());
    line
}

/// A line of standard input, without its end.
async fn line() -> Result<SecretString, String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        stdin().lock().take(LINE_MOST_BYTES).read_line(&mut line).map(|_| line)
    });
    let line = read.await.map_err(|error| error.to_string())?.map_err(|error| format!("standard input: {error}"))?;
    let line = line.strip_suffix('\n').map_or(line.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err("no password on standard input".to_owned());
    }
    Ok(line.into())
}

/// A terminal that does not show what is typed, until this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> Result<Self, String> {
        let failed = |error: rustix::io::Errno| format!("terminal: {error}");
        let before = tcgetattr(stdin()).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Flush, &quiet).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}
