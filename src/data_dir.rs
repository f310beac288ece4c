//! The folder of the embedded backend: one process at a time, secrets that only its user may read.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use uuid::Uuid;

/// File of the queue.
const JOURNAL: &str = "journal.db";

/// A folder that is ours until this value is dropped.
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder if there is none, and locks it.
    pub fn lock(path: &Path) -> Result<Self, String> {
        let failed = |what: &str, error: std::io::Error| format!("{what} {}: {error}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed("cannot make", error))?;
        let lock = private_file(&path.join("lock")).map_err(|error| failed("cannot lock", error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(format!(
                "another process uses the data folder {}; stop it, or set embedded.data_dir to another folder",
                path.display()
            )),
            Err(TryLockError::Error(error)) => Err(failed("cannot lock", error)),
        }
    }

    /// Locks a folder that a server has used, for a look into it: a mistyped name makes no folder.
    pub fn lock_existing(path: &Path) -> Result<Self, String> {
        if !path.join(JOURNAL).is_file() {
            let path = path.display();
            return Err(format!("there is no {JOURNAL} in {path}; is embedded.data_dir the folder of the server?"));
        }
        Self::lock(path)
    }

    /// The database's file.
    pub fn database(&self) -> PathBuf {
        self.path.join("seckill.db")
    }

    /// The queue's file.
    pub fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// The secret of that name; made by `make` if there is none yet.
    pub fn secret(&self, name: &str, make: impl FnOnce() -> String) -> Result<SecretString, String> {
        let path = self.path.join(name);
        let failed = |error: std::io::Error| format!("cannot keep a secret in {}: {error}", path.display());
        match fs::read_to_string(&path) {
            Ok(secret) if !secret.trim().is_empty() => return Ok(secret.trim().into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let secret = make();
        // Written aside and renamed: a crash leaves no half of a secret.
        let aside = self.path.join(format!("{name}.new"));
        let mut file = private_file(&aside).map_err(failed)?;
        file.set_len(0).and_then(|()| writeln!(file, "{secret}")).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&aside, &path).map_err(failed)?;
        Ok(secret.into())
    }
}

fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)
}

/// 244 random bits as hexadecimal digits, from the operating system.
pub fn random_key() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// A password of 20 hexadecimal digits.
pub fn random_password() -> String {
    random_key().split_off(44)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_has_one_user_and_keeps_its_secrets() {
        let path = std::env::temp_dir().join(format!("seckill-data-{}", Uuid::now_v7()));
        let first = DataDir::lock(&path).unwrap();
        let problem = DataDir::lock(&path).err().unwrap();
        assert!(problem.contains("another process") && problem.contains("embedded.data_dir"), "{problem}");
        let made = first.secret("key", random_key).unwrap();
        assert_eq!(first.secret("key", || unreachable!()).unwrap().expose_secret(), made.expose_secret());
        assert_eq!(fs::metadata(path.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(first);
        DataDir::lock(&path).unwrap();
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_is_made_is_long_and_never_the_same() {
        assert_eq!((random_key().len(), random_password().len()), (64, 20));
        assert_ne!(random_password(), random_password());
    }
}
