//! A database's file that refuses: somebody else holds its lock, or there is no room on its disk.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use seckill::config::Backend;

use crate::crowd::Plan;
use crate::server::Server;
use crate::trial::Trial;

/// Longer than SQLite itself waits for a lock, and than a transaction may take.
const LOCKED: Duration = Duration::from_secs(12);
const FULL: Duration = Duration::from_secs(5);
const PLAN: Plan = Plan { lasting: Duration::from_secs(6), ..Plan::rush(1500, 1800) };

async fn no_letters(trial: &mut Trial, sale: &crate::crowd::Sale) {
    let letters = sale.client.metric("seckill_dead_letters").await;
    if letters != Some(0.0) {
        trial.problem(format!("dead letters: {letters:?}"));
    }
}

/// Guards against: messages set aside because somebody looked at the file with another program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_of_another_process_costs_no_promise() {
    let mut trial = Trial::begin("embedded: file locked for 12 s", Backend::Embedded).await;
    let server = Server::start(&trial.config).await;
    let crowd = trial.open_sale(&[&server], PLAN).await;
    crowd.sold(20).await;
    let file = trial.config.embedded.data_dir.join("seckill.db");
    let mut other = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    other.batch_execute("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE").unwrap();
    trial.injected += 1;
    tokio::time::sleep(LOCKED).await;
    other.batch_execute("ROLLBACK").unwrap();
    let sale = trial.judge(crowd).await;
    no_letters(&mut trial, &sale).await;
    trial.finish(vec![server]).await;
}

/// A file system of its own, gone when it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`: this user may not mount.
    pub fn mount(folder: &Path) -> Option<Self> {
        std::fs::create_dir(folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=96m,mode=0700", "tmpfs"]).arg(folder);
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Guards against: messages set aside because the disk was full (issue 14, 2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_no_promise() {
    let mut trial = Trial::begin("embedded: disk full for 5 s", Backend::Embedded).await;
    let folder = trial.config.embedded.data_dir.clone();
    let Some(disk) = SmallDisk::mount(&folder) else {
        eprintln!("skipped: only root can mount a small disk");
        return;
    };
    let server = Server::start(&trial.config).await;
    let crowd = trial.open_sale(&[&server], PLAN).await;
    crowd.sold(20).await;
    let filler = folder.join("filler");
    // Until nothing fits any more; what is left of the last piece, too.
    let _ = std::fs::write(&filler, vec![0; 200 << 20]);
    trial.injected += 1;
    tokio::time::sleep(FULL).await;
    std::fs::remove_file(&filler).unwrap();
    let sale = trial.judge(crowd).await;
    no_letters(&mut trial, &sale).await;
    trial.finish(vec![server]).await;
    drop(disk);
}
