//! Why a broker closes a connection while we log in.
//!
//! The library does not announce that it understands such an explanation, so the broker hangs up without a word. This
//! logs in once more with that one word more, reads the explanation, and hangs up.

use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::problem::{BrokerProblem, Trouble};
use crate::tls::{self, Trust};

/// For all of it.
const TIMEOUT: Duration = Duration::from_secs(3);
const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
const METHOD_FRAME: u8 = 1;
const FRAME_END: u8 = 0xCE;
/// What a broker sends before we have agreed on anything is smaller.
const MAX_FRAME: u32 = 128 * 1024;
/// Methods of the class `connection`.
const CONNECTION: u16 = 10;
const START: u16 = 10;
const START_OK: u16 = 11;
const TUNE: u16 = 30;
const TUNE_OK: u16 = 31;
const OPEN: u16 = 40;
const OPEN_OK: u16 = 41;
const CLOSE: u16 = 50;
const CLOSE_OK: u16 = 51;

/// Who logs in where.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) vhost: String,
    pub(super) trust: Option<Arc<Trust>>,
}

impl Login {
    /// Host and port.
    pub(super) fn server(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What the broker says when one logs in; `None` if it lets us in, says nothing, or cannot be reached.
pub(super) async fn refusal(login: &Login) -> Option<BrokerProblem> {
    tokio::time::timeout(TIMEOUT, refused(login)).await.ok()?
}

async fn refused(login: &Login) -> Option<BrokerProblem> {
    if let Some(trust) = &login.trust
        && let Some(problem) = trust.why_refused(&login.host, login.port).await
    {
        return Some(BrokerProblem::new(Trouble::Misconfigured, problem));
    }
    match log_in(login).await {
        Ok(problem) => problem,
        // It hung up, or said what is not AMQP.
        Err(error) if login.trust.is_none() && error.kind() != ErrorKind::ConnectionRefused => {
            let wants_tls = || format!("rabbitmq.tls: {} wants TLS: set rabbitmq.tls: verify", login.server());
            let speaks_tls = tls::speaks_tls(&login.host, login.port).await;
            speaks_tls.then(|| BrokerProblem::new(Trouble::Misconfigured, wants_tls()))
        }
        Err(_) => None,
    }
}

async fn connect(login: &Login) -> Result<Box<dyn Stream>> {
    Ok(match &login.trust {
        Some(trust) => Box::new(trust.connect(&login.host, login.port).await?),
        None => Box::new(TcpStream::connect((tls::bare(&login.host), login.port)).await?),
    })
}

async fn log_in(login: &Login) -> Result<Option<BrokerProblem>> {
    let mut stream = connect(login).await?;
    stream.write_all(PROTOCOL_HEADER).await?;
    loop {
        let (method, arguments) = read_method(&mut stream).await?;
        match method {
            START => send(&mut stream, START_OK, &start_ok(login)).await?,
            TUNE => {
                // Its own limits, and no heartbeat.
                let limits = arguments.get(..6).ok_or(ErrorKind::InvalidData)?;
                send(&mut stream, TUNE_OK, &[limits, &[0, 0]].concat()).await?;
                let mut open = short_text(&login.vhost);
                open.extend_from_slice(&[0, 0]);
                send(&mut stream, OPEN, &open).await?;
            }
            CLOSE => {
                let problem = parse_close(&arguments).ok_or(ErrorKind::InvalidData)?;
                let _ = send(&mut stream, CLOSE_OK, &[]).await;
                return Ok(Some(problem));
            }
            OPEN_OK => return Ok(None),
            _ => return Err(ErrorKind::InvalidData.into()),
        }
    }
}

/// The next method of the class `connection`: its number and its arguments.
async fn read_method(stream: &mut impl Stream) -> Result<(u16, Vec<u8>)> {
    loop {
        let kind = stream.read_u8().await?;
        let _channel = stream.read_u16().await?;
        let size = stream.read_u32().await?;
        if size > MAX_FRAME {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; size as usize];
        stream.read_exact(&mut payload).await?;
        if stream.read_u8().await? != FRAME_END {
            return Err(ErrorKind::InvalidData.into());
        }
        // Anything else is a heartbeat.
        if kind == METHOD_FRAME && payload.len() >= 4 {
            let class = u16::from_be_bytes([payload[0], payload[1]]);
            let method = u16::from_be_bytes([payload[2], payload[3]]);
            return if class == CONNECTION { Ok((method, payload.split_off(4))) } else { Err(Error::other("class")) };
        }
    }
}

async fn send(stream: &mut impl Stream, method: u16, arguments: &[u8]) -> Result<()> {
    let mut frame = vec![METHOD_FRAME, 0, 0];
    frame.extend_from_slice(&(4 + arguments.len() as u32).to_be_bytes());
    frame.extend_from_slice(&CONNECTION.to_be_bytes());
    frame.extend_from_slice(&method.to_be_bytes());
    frame.extend_from_slice(arguments);
    frame.push(FRAME_END);
    stream.write_all(&frame).await
}

/// Who we are, and the word that makes the broker explain itself.
fn start_ok(login: &Login) -> Vec<u8> {
    let mut capabilities = short_text("authentication_failure_close");
    capabilities.extend_from_slice(b"t\x01");
    let mut properties = short_text("capabilities");
    properties.push(b'F');
    properties.extend_from_slice(&long_text(&capabilities));
    let response = format!("\0{}\0{}", login.user, login.password);
    [long_text(&properties), short_text("PLAIN"), long_text(response.as_bytes()), short_text("en_US")].concat()
}

fn short_text(text: &str) -> Vec<u8> {
    let bytes = &text.as_bytes()[..text.len().min(255)];
    [&[bytes.len() as u8], bytes].concat()
}

fn long_text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn parse_close(arguments: &[u8]) -> Option<BrokerProblem> {
    let number = |at: usize| Some(u16::from_be_bytes([*arguments.get(at)?, *arguments.get(at + 1)?]));
    let end = 3 + usize::from(*arguments.get(2)?);
    let text = String::from_utf8_lossy(arguments.get(3..end)?);
    Some(BrokerProblem::of_reply(number(0)?, &text, (number(end)?, number(end + 2)?)))
}
