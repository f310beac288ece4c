//! Standard output, of which somebody may read only the beginning, as `head` does: that is no error of ours.

use std::io::{ErrorKind, Write};

/// Prints to standard output, if anybody still reads it.
pub(crate) fn print(text: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_fmt(text).and_then(|()| out.flush());
}

/// Prints lines to standard output. Whoever reads them may stop before the end, as `head` does.
pub(crate) fn print_lines(lines: impl IntoIterator<Item = String>) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    let printed = lines.into_iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("cannot print: {error}")),
        _ => Ok(()),
    }
}
