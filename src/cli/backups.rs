//! `seckill backup` and `seckill restore`: the embedded backend's data in one file.

use std::path::Path;

use crate::config::{Backend, Config};
use crate::data_dir::{DataDir, database_in, journal_in};
use crate::db::backup;

/// Does not lock the folder: a server may be selling.
pub(super) async fn back_up(config: &Config, file: &Path) -> Result<(), String> {
    let folder = embedded_folder(config)?;
    // The sale goes first.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10);
    let (database, journal, into) = (database_in(folder), journal_in(folder), file.to_owned());
    blocking(move || backup::back_up(&database, &journal, &into)).await?;
    println!(
        "{} holds the database and the journal, also names and password hashes, but no secret of {}",
        file.display(),
        folder.display()
    );
    Ok(())
}

pub(super) async fn restore(config: &Config, file: &Path) -> Result<(), String> {
    let data_dir = DataDir::lock(embedded_folder(config)?)?;
    let (database, journal, from) = (data_dir.database(), data_dir.journal(), file.to_owned());
    let made = blocking(move || backup::restore(&from, &database, &journal)).await?;
    println!(
        "Restored {} to {} ({made}). The next start brings its schema up to date; unless jwt_secret is put there, too, \
         everybody logs in anew",
        file.display(),
        data_dir.path().display()
    );
    Ok(())
}

fn embedded_folder(config: &Config) -> Result<&Path, String> {
    match config.backend {
        Backend::Embedded => Ok(&config.embedded.data_dir),
        Backend::Distributed => {
            Err("backend: is distributed, whose promises are in MySQL and RabbitMQ; this command is for \
                                     the embedded backend. Use your database's own backup"
                .to_owned())
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}
