//! The folder of the embedded backend: one process at a time, and nothing in it that another user may read.
//!
//! Secrets and the lock are ours alone, so a symbolic link in their place is refused. The folder itself and the databases
//! may be links: an operator moves them to another disk that way.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use secrecy::SecretString;

use crate::secret_file::{self, Links};

const DATABASE: &str = "seckill.db";
const JOURNAL: &str = "journal.db";
const LOCK: &str = "lock";
/// The key of the tokens.
pub const JWT_SECRET: &str = "jwt_secret";
/// The first administrator's password, if we made it.
pub const ADMIN_PASSWORD: &str = "admin_password";

/// A folder that is ours until this value is dropped.
pub struct DataDir {
    path: PathBuf,
    // Locks of the folder itself, which nobody can delete under us as they can a file in it, and of the file that
    // versions before this one looked at.
    _folder: File,
    _file: File,
}

impl DataDir {
    /// Makes the folder if there is none, locks it, and keeps other users out of it.
    pub fn lock(path: &Path) -> Result<Self, String> {
        let failed = |what: &str, error: std::io::Error| format!("{what} the data folder {}: {error}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed("cannot make", error))?;
        let folder = File::open(path).map_err(|error| failed("cannot open", error))?;
        claim(&folder, path)?;
        let file_path = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600).custom_flags(secret_file::no_links());
        let file = options
            .open(&file_path)
            .map_err(|error| format!("cannot lock {}", secret_file::unfollowed(&file_path, &error)))?;
        claim(&file, path)?;
        tighten(path, &folder)?;
        Ok(Self { path: path.to_owned(), _folder: folder, _file: file })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
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
        database_in(&self.path)
    }

    /// The queue's file.
    pub fn journal(&self) -> PathBuf {
        journal_in(&self.path)
    }

    /// The secret of that name; made by `make` if there is none yet. One that `check` refuses is an error, as it would be
    /// in the configuration.
    pub fn secret(
        &self,
        name: &str,
        check: impl FnOnce(&str) -> Result<(), String>,
        make: impl FnOnce() -> String,
    ) -> Result<SecretString, String> {
        if let Some(kept) = kept_secret(&self.path, name, check)? {
            return Ok(kept);
        }
        let secret = make();
        secret_file::write(&self.path.join(name), &secret)?;
        Ok(secret.into())
    }
}

/// The database's file in a data folder.
pub fn database_in(folder: &Path) -> PathBuf {
    folder.join(DATABASE)
}

/// The queue's file in a data folder.
pub fn journal_in(folder: &Path) -> PathBuf {
    folder.join(JOURNAL)
}

/// The secret of that name that a data folder has, if it has one.
pub fn kept_secret(
    folder: &Path,
    name: &str,
    check: impl FnOnce(&str) -> Result<(), String>,
) -> Result<Option<SecretString>, String> {
    use secrecy::ExposeSecret;
    let path = folder.join(name);
    let kept = secret_file::read(&path, Links::Refuse)?;
    if let Some(kept) = &kept {
        check(kept.expose_secret()).map_err(|problem| format!("{}: {problem}", path.display()))?;
    }
    Ok(kept)
}

/// Removes a secret that is not true any more. Not an error if there is none.
pub fn forget_secret(folder: &Path, name: &str) -> Result<(), String> {
    let path = folder.join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {error}", path.display())),
        _ => Ok(()),
    }
}

fn claim(file: &File, path: &Path) -> Result<(), String> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(format!(
            "another process uses the data folder {}; stop it. Is this a second shop? Give it an embedded.data_dir of its own",
            path.display()
        )),
        Err(TryLockError::Error(error)) => Err(format!("cannot lock the data folder {}: {error}", path.display())),
    }
}

/// Takes the rights of others from what is ours. The folder's only if it is a data folder: somebody may have named their
/// home, or `/tmp`.
fn tighten(path: &Path, folder: &File) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot look at the data folder {}: {error}", path.display());
    let found = folder.metadata().map_err(failed)?;
    let foreign = fs::read_dir(path).map_err(failed)?.filter_map(Result::ok).any(|entry| {
        let name = entry.file_name();
        !is_ours(&name.to_string_lossy())
    });
    if found.mode() & 0o077 != 0 {
        let mode = format!("{:o}", found.mode() & 0o7777);
        let tightened = !foreign && folder.set_permissions(Permissions::from_mode(0o700)).is_ok();
        if tightened {
            tracing::warn!(folder = %path.display(), %mode, "Others had rights to the data folder; it is private now");
        } else if found.mode() & 0o1002 == 0o002 || (found.uid() != geteuid().as_raw() && found.uid() != 0) {
            // They could put other files in the place of ours.
            return Err(format!("others may change the data folder {} (mode {mode}): chmod 700", path.display()));
        } else {
            tracing::warn!(folder = %path.display(), %mode, "Others have rights to the data folder; its files are private");
        }
    }
    let main = [DATABASE, JOURNAL, JWT_SECRET, ADMIN_PASSWORD, LOCK].map(str::to_owned);
    let logs = [DATABASE, JOURNAL].into_iter().flat_map(|name| [format!("{name}-wal"), format!("{name}-shm")]);
    for name in main.into_iter().chain(logs) {
        let opened = OpenOptions::new().read(true).custom_flags(secret_file::no_links()).open(path.join(&name));
        let Ok(file) = opened else { continue };
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            tracing::warn!(file = %name, mode = format!("{mode:o}"), "Others had rights to a file of ours; it is private now");
            file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
        }
    }
    Ok(())
}

/// What may lie in a data folder. `lost+found` is the root of a disk.
fn is_ours(name: &str) -> bool {
    let plain = [LOCK, JWT_SECRET, ADMIN_PASSWORD, "lost+found"];
    plain.contains(&name.trim_end_matches(".new")) || name.starts_with(DATABASE) || name.starts_with(JOURNAL)
}

/// 256 random bits as hexadecimal digits, from the operating system.
pub fn random_key() -> String {
    let word = || getrandom::u64().expect("the operating system has random numbers, or nothing here is safe");
    format!("{:016x}{:016x}{:016x}{:016x}", word(), word(), word(), word())
}

/// A password of 20 hexadecimal digits.
pub fn random_password() -> String {
    random_key().split_off(44)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::os::unix::fs::symlink;
    use uuid::Uuid;

    fn folder() -> PathBuf {
        std::env::temp_dir().join(format!("seckill-data-{}", Uuid::now_v7()))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn fine(_: &str) -> Result<(), String> {
        Ok(())
    }

    #[test]
    fn a_folder_has_one_user_and_keeps_its_secrets() {
        let path = folder();
        let first = DataDir::lock(&path).unwrap();
        let problem = DataDir::lock(&path).err().unwrap();
        assert!(problem.contains("another process") && problem.contains("embedded.data_dir"), "{problem}");
        let made = first.secret("key", fine, random_key).unwrap();
        assert_eq!(first.secret("key", fine, || unreachable!()).unwrap().expose_secret(), made.expose_secret());
        assert_eq!(mode(&path.join("key")), 0o600);
        assert_eq!(mode(&path), 0o700);
        drop(first);
        DataDir::lock(&path).unwrap();
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn the_lock_holds_when_its_file_is_unlinked() {
        let path = folder();
        let first = DataDir::lock(&path).unwrap();
        fs::remove_file(path.join(LOCK)).unwrap();
        let problem = DataDir::lock(&path).err().expect("a second process is turned away");
        assert!(problem.contains("another process"), "{problem}");
        drop(first);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn no_symbolic_link_is_followed_to_read_or_write_a_secret() {
        let path = folder();
        let elsewhere = folder();
        fs::create_dir_all(&elsewhere).unwrap();
        let victim = elsewhere.join("victim");
        fs::write(&victim, "precious").unwrap();
        let data = DataDir::lock(&path).unwrap();

        symlink(&victim, path.join("key.new")).unwrap();
        data.secret("key", fine, random_key).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious", "nothing is written through a link");
        assert!(!path.join("key").symlink_metadata().unwrap().is_symlink());

        symlink(&victim, path.join("other")).unwrap();
        let problem = data.secret("other", fine, || unreachable!()).unwrap_err();
        assert!(problem.contains("symbolic link") && problem.contains("other"), "{problem}");

        drop(data);
        fs::remove_file(path.join(LOCK)).unwrap();
        symlink(elsewhere.join("lock"), path.join(LOCK)).unwrap();
        let problem = DataDir::lock(&path).err().expect("a linked lock locks something else");
        assert!(problem.contains("symbolic link") && problem.contains("lock"), "{problem}");
        assert!(!elsewhere.join("lock").exists());
        fs::remove_dir_all(path).unwrap();
        fs::remove_dir_all(elsewhere).unwrap();
    }

    #[test]
    fn what_others_could_read_is_made_private() {
        let path = folder();
        DirBuilder::new().mode(0o755).create(&path).unwrap();
        for name in [DATABASE, JOURNAL, JWT_SECRET, "seckill.db-wal"] {
            fs::write(path.join(name), "").unwrap();
            fs::set_permissions(path.join(name), Permissions::from_mode(0o644)).unwrap();
        }
        drop(DataDir::lock(&path).unwrap());
        assert_eq!(mode(&path), 0o700);
        for name in [DATABASE, JOURNAL, JWT_SECRET, "seckill.db-wal", LOCK] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_folder_of_somebody_else_s_files_keeps_its_mode_and_one_that_others_may_change_is_refused() {
        let path = folder();
        DirBuilder::new().mode(0o755).create(&path).unwrap();
        fs::write(path.join("a letter"), "").unwrap();
        drop(DataDir::lock(&path).unwrap());
        assert_eq!(mode(&path), 0o755, "it may be a home folder");
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        let problem = DataDir::lock(&path).err().expect("others could replace its files");
        assert!(problem.contains("chmod 700"), "{problem}");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_kept_secret_is_checked_as_its_key_is() {
        let path = folder();
        let data = DataDir::lock(&path).unwrap();
        fs::write(path.join("key"), "short\n").unwrap();
        let check = |secret: &str| if secret.len() < 32 { Err("too short".to_owned()) } else { Ok(()) };
        let problem = data.secret("key", check, || unreachable!()).unwrap_err();
        assert!(problem.ends_with("key: too short"), "{problem}");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_is_made_is_long_and_never_the_same() {
        assert_eq!((random_key().len(), random_password().len()), (64, 20));
        assert_ne!(random_password(), random_password());
    }
}
