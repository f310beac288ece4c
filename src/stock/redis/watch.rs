//! Whether the server is still the one that the links were made to, and does what a purchase needs.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::connection::read_server_id;
use super::gate::RedisGate;
use super::replies::status;
use super::sold_out_cache::poller;
use crate::stock::types::GateError;

/// How often an idle link's server is asked who it is.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// What a purchase needs is tried once in this time at most.
const PROBED_FOR: Duration = Duration::from_secs(1);

impl RedisGate {
    pub(in crate::stock) async fn server_id(&self) -> Result<String, GateError> {
        let cell = &self.server.cells[0];
        let link = self.server.link(cell).await?;
        // Asked anew: the link may be older than a failover.
        let server_id = read_server_id(&mut link.conn()).await;
        if server_id.as_ref() != Ok(&link.server_id) {
            cell.drop_link(&link);
        } else {
            let _ = self.server.ask_gates(cell, &[]).await;
        }
        server_id
    }

    /// Those who ask while somebody finds out wait for the same answer.
    pub(in crate::stock) async fn ping(&self) -> Result<(), GateError> {
        let mut probed = self.probed.lock().await;
        if let Some((at, result)) = &*probed
            && at.elapsed() < PROBED_FOR
        {
            return result.clone();
        }
        let result = self.try_a_purchase().await;
        *probed = Some((Instant::now(), result.clone()));
        result
    }

    /// Does what a purchase needs, without touching a sale.
    async fn try_a_purchase(&self) -> Result<(), GateError> {
        let server = &self.server;
        let (keys, rate_prefix) = server.keys.probe();
        let reply: Result<String, _> = server
            .invoke_on(&server.prober, &server.scripts.probe, &keys, |_, call| {
                call.arg(rate_prefix);
            })
            .await;
        let tried = reply.and_then(|reply| status(&reply));
        if tried.is_ok() {
            server.troubles.over();
        }
        tried
    }

    pub(in crate::stock) async fn watch(&self, stop: CancellationToken) {
        tokio::join!(self.watch_links(&stop), poller::run(&self.server, &self.sold_out, &stop));
    }

    async fn watch_links(&self, stop: &CancellationToken) {
        let server = &self.server;
        let mut tick = tokio::time::interval(WATCH_INTERVAL);
        let mut known_server = None;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let _ = server.ask_gates(&server.reader, &[]).await;
            let _ = self.ping().await;
            for cell in server.all_cells() {
                let Some(link) = cell.current() else { continue };
                match read_server_id(&mut link.conn()).await {
                    Ok(server_id) if server_id == link.server_id => known_server = Some(server_id),
                    Ok(server_id) => {
                        // Each of the links finds out by itself.
                        if known_server.replace(server_id.clone()).is_some_and(|known| known != server_id) {
                            tracing::warn!("Redis is another server than before: connecting anew");
                        }
                        cell.drop_link(&link);
                    }
                    Err(error) => {
                        server.troubles.note(&error);
                        cell.drop_link(&link);
                    }
                }
            }
        }
    }
}
