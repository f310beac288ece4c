//! `traceparent`, as the W3C's Trace Context has it: which trace something belongs to, and which span of it caused it.

use std::fmt;
use std::str::FromStr;

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; not 0.
    pub trace_id: u128,
    /// The span that caused what comes next; not 0.
    pub span_id: u64,
    /// Whether whoever sent it records the trace.
    pub sampled: bool,
}

/// Length of version 00, and of what all versions begin with.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

impl FromStr for TraceParent {
    type Err = ();

    /// Reads version 00, and what a later version has in common with it. Version ff is forbidden, and so are upper case and zeros.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (known, rest) = text.as_bytes().split_at_checked(LENGTH).ok_or(())?;
        let version = hex(&known[..2])?;
        let is_whole = if version == 0 { rest.is_empty() } else { matches!(rest, [] | [b'-', ..]) };
        let [_, _, b'-', trace_id @ .., b'-', _, _] = known else { return Err(()) };
        let (trace_id, span_id) = trace_id.split_at_checked(32).ok_or(())?;
        let span_id = span_id.strip_prefix(b"-").ok_or(())?;
        let (trace_id, span_id) = (hex(trace_id)?, hex(span_id)? as u64);
        let flags = hex(&known[LENGTH - 2..])? as u8;
        if !is_whole || version == 0xff || trace_id == 0 || span_id == 0 {
            return Err(());
        }
        Ok(Self { trace_id, span_id, sampled: flags & SAMPLED != 0 })
    }
}

/// The number that lower-case digits say.
fn hex(digits: &[u8]) -> Result<u128, ()> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return Err(()),
        };
        Ok(number << 4 | u128::from(value))
    })
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(text: &str) -> Option<TraceParent> {
        text.parse().ok()
    }

    #[test]
    fn what_is_well_formed_is_read_and_written_the_same() {
        let parent = read(EXAMPLE).unwrap();
        assert_eq!((parent.trace_id, parent.span_id), (0x4bf92f3577b34da6a3ce929d0e0e4736, 0xf067aa0ba902b7));
        assert!(parent.sampled);
        assert_eq!(parent.to_string(), EXAMPLE);
        // The other flags are not ours, and are not passed on.
        for (flags, sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            assert_eq!(read(&EXAMPLE.replace("-01", &format!("-{flags}"))), Some(TraceParent { sampled, ..parent }));
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = EXAMPLE.replacen("00", "cc", 1);
        assert_eq!(read(&later), read(EXAMPLE));
        assert_eq!(read(&format!("{later}-what-the-future-brings")), read(EXAMPLE));
        assert_eq!(read(&format!("{later}-")), read(EXAMPLE));
        assert_eq!(read(&format!("{later}.x")), None);
    }

    #[test]
    fn what_is_malformed_is_no_traceparent() {
        for bad in [
            "",
            "00",
            &EXAMPLE[..54],
            &format!("{EXAMPLE}-"),
            &format!("{EXAMPLE}-00"),
            &EXAMPLE.to_uppercase(),
            &EXAMPLE.replacen("00", "ff", 1),
            &EXAMPLE.replacen("00", "0g", 1),
            &EXAMPLE.replace('-', "_"),
            &EXAMPLE.replace("-00f067aa0ba902b7", "000f067aa0ba902b7"),
            &EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &EXAMPLE.replace("4b", "4B"),
            &EXAMPLE.replace("-01", "-0x"),
            &EXAMPLE.replace("-01", "-é"),
            &EXAMPLE.replace("4b", "+b"),
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
