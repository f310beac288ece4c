//! A socket that is read and written only when its connection may be.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};

use actix_web::web::BytesMut;
use memchr::memmem::Finder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::{Connection, Turn};
use super::refusal::Refusal;

/// See the module.
pub(super) struct GuardedStream {
    io: TcpStream,
    connection: Rc<Connection>,
    /// Read, but not the framework's turn yet: requests behind the one that it is given. Mostly nothing.
    held: BytesMut,
}

impl GuardedStream {
    pub(super) fn new(io: TcpStream, connection: Rc<Connection>) -> Self {
        Self { io, connection, held: BytesMut::new() }
    }

    pub(super) fn connection(&self) -> Rc<Connection> {
        self.connection.clone()
    }

    /// Reads what may be read, and keeps what came with it.
    fn read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<()>> {
        let (length, after_head) = if self.held.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
            let read = &buffer.filled()[before..];
            let (length, after_head) = one_request(&read[..read.len().min(most)]);
            if length < read.len() {
                self.held.extend_from_slice(&read[length..]);
                buffer.set_filled(before + length);
            }
            (length, after_head)
        } else {
            let most = self.held.len().min(buffer.remaining()).min(most);
            let (length, after_head) = one_request(&self.held[..most]);
            buffer.put_slice(&self.held.split_to(length));
            if self.held.is_empty() {
                // Gives the memory back: few connections need it twice.
                self.held = BytesMut::new();
            }
            (length, after_head)
        };
        if !self.held.is_empty() {
            // Nothing else may come that would wake us.
            cx.waker().wake_by_ref();
        }
        if length > 0 {
            self.connection.has_read(length, after_head);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads only to see whether the client is gone.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::uninit(); 1024];
        let mut ahead = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut ahead))?;
        if ahead.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.held.extend_from_slice(ahead.filled());
        self.connection.has_kept();
        Poll::Pending
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.connection.may_read(!this.held.is_empty()) {
            Turn::Go(most) => this.read(cx, buffer, most),
            Turn::Ahead => this.read_ahead(cx),
            Turn::Wait => Poll::Pending,
            Turn::End => Poll::Ready(Ok(())),
            Turn::Refuse(refusal) => {
                refusal.answer(&this.io);
                Poll::Ready(Err(refusal.error()))
            }
        }
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.connection.may_write() {
            return Poll::Pending;
        }
        if this.connection.is_not_ours() && is_frameworks_error(bytes) {
            // Small, and nothing waits before it. If it does not fit the client gets a part, and then the end.
            let _ = this.io.try_write(&Refusal::Malformed.reply());
            return Poll::Ready(Ok(bytes.len()));
        }
        match Pin::new(&mut this.io).poll_write(cx, bytes) {
            Poll::Ready(written) => {
                let written = written?;
                this.connection.has_written(written);
                Poll::Ready(Ok(written))
            }
            Poll::Pending => {
                this.connection.is_stalled();
                Poll::Pending
            }
        }
    }

    /// The framework calls this when it has nothing left to write.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.connection.all_sent();
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// The framework answers what it cannot parse with an empty 400.
fn is_frameworks_error(bytes: &[u8]) -> bool {
    let is_400 = bytes.starts_with(b"HTTP/1.1 400 ") || bytes.starts_with(b"HTTP/1.0 400 ");
    is_400 && bytes.ends_with(b"\r\n\r\n")
}

/// How much of `bytes` has one head's end in it at most, and how much of that is behind it. A body may look as if it had
/// another; then it is read in parts.
fn one_request(bytes: &[u8]) -> (usize, Option<usize>) {
    match head_end(bytes) {
        Some(end) if head_end(&bytes[end..]).is_some() => (end, Some(0)),
        end => (bytes.len(), end.map(|end| bytes.len() - end)),
    }
}

/// Where the first empty line is over; the parser takes a bare line feed for an end of line as well.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let end = EMPTY_LINE.find(bytes).map(|at| at + 3);
    // Ends in bare line feeds that come before it.
    let before = end.map_or(bytes, |end| &bytes[..end - 2]);
    BARE_EMPTY_LINE.find(before).map(|at| at + 2).or(end)
}

static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\r\n"));
static BARE_EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\n"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_holds_one_request_at_most() {
        for (bytes, length) in [
            ("", (0, None)),
            ("GET / HTT", (9, None)),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", (27, Some(0))),
            ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", (18, Some(0))),
            ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r", (35, Some(17))),
            ("GET / HTTP/1.1\n\nGET / HTTP/1.1\n\nGET", (16, Some(0))),
            ("GET / HTTP/1.1\n\nGET / HTTP/1.1\r\n\r\n", (16, Some(0))),
            ("GET / HTTP/1.1\n\r\nGET / HTTP/1.1\n\n", (17, Some(0))),
            ("GET / HTTP/1.1\r\n\n\r\n", (19, Some(2))),
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", (40, Some(2))),
            ("\n\n\n\n", (2, Some(0))),
        ] {
            assert_eq!(one_request(bytes.as_bytes()), length, "{bytes:?}");
        }
    }
}
