//! Replies below the framework: to those who are turned away, cut off, or not understood.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use tokio::net::TcpStream;
use uuid::Uuid;

/// What a socket that is closed with unread bytes loses is our reply, so so many pieces are read first.
const READ_BEFORE_CLOSING: usize = 16;

/// Why a connection ends with a reply of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The framework could not read it.
    Malformed,
    /// The head did not arrive in time.
    SlowHead,
    /// The head is too large.
    LargeHead,
    /// There are too many connections from this address.
    TooMany,
    /// There are too many connections.
    Full,
}

impl Refusal {
    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Malformed => ("400 Bad Request", "invalid_request", "This is not a request that HTTP allows."),
            Self::SlowHead => ("408 Request Timeout", "request_timeout", "The request did not arrive in time."),
            Self::LargeHead => (
                "431 Request Header Fields Too Large",
                "headers_too_large",
                "The address and the headers of a request are at most 16 KiB.",
            ),
            Self::TooMany => ("429 Too Many Requests", "rate_limited", "Too many connections from this address."),
            Self::Full => ("503 Service Unavailable", "unavailable", "Not possible right now; ask again in a moment."),
        }
    }

    /// The whole reply, which is the last one of its connection.
    pub(super) fn reply(self) -> Vec<u8> {
        let (status, code, detail) = self.parts();
        let (number, title) = status.split_at(3);
        let title = title.trim_start();
        let body = format!(
            r#"{{"type":"about:blank","title":"{title}","status":{number},"code":"{code}","detail":"{detail}"}}"#
        );
        let retry = match self {
            Self::TooMany => "retry-after: 1\r\nratelimit: \"connections\";r=0;t=1\r\n",
            Self::Full => "retry-after: 1\r\n",
            Self::Malformed | Self::SlowHead | Self::LargeHead => "",
        };
        let (length, date, id) = (body.len(), date(), Uuid::new_v4());
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\
             content-type: application/problem+json\r\ncache-control: no-store\r\n{retry}\
             x-request-id: {id}\r\ndate: {date}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// Answers as far as the socket takes it at once, and reads what it has, for else closing it would take the reply
    /// back.
    pub(super) fn answer(self, io: &TcpStream) {
        let _ = io.try_write(&self.reply());
        let mut rest = [0; 8 * 1024];
        for _ in 0..READ_BEFORE_CLOSING {
            if !io.try_read(&mut rest).is_ok_and(|length| length > 0) {
                break;
            }
        }
    }

    /// How the connection ends for the framework.
    pub(super) fn error(self) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, self.parts().2)
    }
}

/// Now, as HTTP writes it.
fn date() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(since).ok().and_then(|seconds| DateTime::<Utc>::from_timestamp(seconds, 0));
    now.unwrap_or_default().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
