//! A wire between the program and a server, which a test can cut, block, slow down and wear thin.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use seckill::config::Config;

use crate::link::Link;
use crate::process::free_port;

/// How the wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// As it should be.
    Good,
    /// Every connection is reset, each new one too.
    Cut,
    /// Connections stay, new ones are accepted, and nothing gets through until the wire is good again.
    HalfOpen,
    /// What the program sends arrives, the replies do not until the wire is good again.
    Mute,
    /// Everything arrives this much later.
    Slow(Duration),
    /// Of RabbitMQ: confirms get lost.
    WithoutConfirms,
    /// Each connection is reset after this many bytes, in the middle of whatever they were.
    ResetAfter(u64),
}

/// The wire; cut for good when dropped.
pub struct Proxy {
    wire: watch::Sender<Wire>,
}

/// Whether a connection ends as its ends wished.
#[derive(PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

impl Proxy {
    /// Puts a wire before a server and makes `config` lead there.
    pub async fn before(link: Link, config: &mut Config) -> Self {
        let server = link.address(config);
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        link.redirect(config, port);
        let (wire, watched) = watch::channel(Wire::Good);
        tokio::spawn(accept(listener, server, watched));
        Self { wire }
    }

    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

async fn accept(listener: TcpListener, server: String, mut wire: watch::Receiver<Wire>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                tokio::spawn(connect(client, server.clone(), wire.clone()));
            }
            changed = wire.changed() => if changed.is_err() { return },
        }
    }
}

async fn connect(mut client: TcpStream, server: String, wire: watch::Receiver<Wire>) {
    let end = match TcpStream::connect(server).await {
        Ok(mut server) => {
            let end = carry(&mut client, &mut server, wire).await;
            if end == End::Reset {
                let _ = server.set_zero_linger();
            }
            end
        }
        Err(_) => End::Reset,
    };
    if end == End::Reset {
        let _ = client.set_zero_linger();
    }
}

/// Carries bytes both ways until either side, or the wire, has had enough.
async fn carry(client: &mut TcpStream, server: &mut TcpStream, wire: watch::Receiver<Wire>) -> End {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let passed = AtomicU64::new(0);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let mut cut = wire.clone();
    tokio::select! {
        end = pump(from_client, to_server, wire.clone(), false, &passed) => end,
        end = pump(from_server, to_client, wire, true, &passed) => end,
        // Also when the test has ended.
        _ = cut.wait_for(|wire| *wire == Wire::Cut) => End::Reset,
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut wire: watch::Receiver<Wire>,
    replies: bool,
    passed: &AtomicU64,
) -> End {
    let mut buffer = vec![0; 16 * 1024];
    let blocks = |wire: &Wire| *wire == Wire::HalfOpen || replies && *wire == Wire::Mute;
    loop {
        let mut bytes = match from.read(&mut buffer).await {
            Ok(0) => return End::Closed,
            Ok(count) => &buffer[..count],
            Err(_) => return End::Reset,
        };
        let Ok(now) = wire.wait_for(|wire| !blocks(wire)).await.map(|wire| *wire) else { return End::Reset };
        if let Wire::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        let without;
        if replies && now == Wire::WithoutConfirms {
            without = without_confirms(bytes);
            bytes = &without;
        }
        let before = passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let too_many = matches!(now, Wire::ResetAfter(limit) if before + bytes.len() as u64 > limit);
        if let Wire::ResetAfter(limit) = now
            && too_many
        {
            bytes = &bytes[..limit.saturating_sub(before) as usize];
        }
        if to.write_all(bytes).await.is_err() || too_many {
            return End::Reset;
        }
    }
}

/// Bytes of a frame with `basic.ack`: type, channel and length, class and method, tag and flag, end.
const CONFIRM: usize = 7 + 4 + 9 + 1;

/// What is left without such frames. One that is cut by the end of the bytes stays.
fn without_confirms(bytes: &[u8]) -> Vec<u8> {
    let is_confirm = |frame: &[u8]| {
        frame[0] == 1 && frame[3..7] == [0, 0, 0, 13] && frame[7..11] == [0, 60, 0, 80] && frame[CONFIRM - 1] == 0xCE
    };
    let mut bytes = bytes.to_vec();
    while let Some(at) = bytes.windows(CONFIRM).position(is_confirm) {
        bytes.drain(at..at + CONFIRM);
    }
    bytes
}
