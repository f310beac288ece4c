//! Files that hold one secret: how they are read, and how one of ours is written.
//!
//! A secret in a file is held to the same rules as in the configuration. The end of its line is not part of it; any
//! other white space around it is a mistake of whoever made the file, and is refused rather than guessed about.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use secrecy::SecretString;

/// More than any secret has.
const MOST_BYTES: usize = 8 * 1024;

/// Whether a symbolic link in the place of a file is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// The operator named the file: it may be one (Kubernetes' secrets are).
    Follow,
    /// The file is ours: a link was put there by somebody else.
    Refuse,
}

/// The secret in a file; `None` if there is no such file.
pub fn read(path: &Path, links: Links) -> Result<Option<SecretString>, String> {
    let problem = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let mut options = OpenOptions::new();
    options.read(true);
    let file = match links {
        Links::Follow => options.open(path),
        Links::Refuse => options.custom_flags(no_links()).open(path),
    };
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unfollowed(path, &error)),
    };
    let mut bytes = Vec::new();
    file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|error| problem(&error))?;
    if bytes.len() > MOST_BYTES {
        return Err(problem(&format!("is no secret: it has more than {MOST_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| problem(&"is not UTF-8"))?;
    let line = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err(problem(&"is empty"));
    }
    if line.contains(['\n', '\r']) {
        return Err(problem(&"has more than one line"));
    }
    if line.trim() != line {
        return Err(problem(&"begins or ends with white space"));
    }
    Ok(Some(line.into()))
}

/// Writes a secret of ours, for this user alone. Written aside and renamed: a crash leaves no half of a secret.
pub fn write(path: &Path, secret: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot keep a secret in {}: {error}", path.display());
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = Path::new(&aside);
    // What an earlier crash left, or a link that somebody put there; the file is made anew, never written through.
    match fs::remove_file(aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(aside).map_err(failed)?;
    writeln!(file, "{secret}").and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(aside, path).map_err(failed)?;
    // The name, too, is on disk before anybody relies on it.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// The flag that makes opening a symbolic link an error.
pub fn no_links() -> i32 {
    OFlags::NOFOLLOW.bits() as i32
}

/// What is wrong with a file of ours that could not be opened.
pub fn unfollowed(path: &Path, error: &std::io::Error) -> String {
    if path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
        return format!("{} is a symbolic link, which is not followed; remove it", path.display());
    }
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn the_end_of_its_line_is_not_part_of_a_secret_and_other_white_space_is_refused() {
        let path = std::env::temp_dir().join(format!("seckill-secret-{}", uuid::Uuid::now_v7()));
        let read_as = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read(&path, Links::Follow).map(|secret| secret.unwrap().expose_secret().to_owned())
        };
        for text in [&b"one two"[..], b"one two\n", b"one two\r\n"] {
            assert_eq!(read_as(text).unwrap(), "one two");
        }
        for (text, problem) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b" secret\n", "white space"),
            (b"secret \n", "white space"),
            (b"secret\t", "white space"),
            (b"one\ntwo\n", "more than one line"),
            (b"secret\n\n", "more than one line"),
            (b"\xff\xfe", "is not UTF-8"),
            (&[b'x'; MOST_BYTES + 1], "more than 8192 bytes"),
        ] {
            let refusal = read_as(text).unwrap_err();
            assert!(refusal.contains(problem) && refusal.contains("seckill-secret-"), "{refusal}");
        }
        fs::remove_file(&path).unwrap();
        assert!(read(&path, Links::Follow).unwrap().is_none());
    }
}
