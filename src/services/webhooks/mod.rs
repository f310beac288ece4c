//! Webhooks: the shop is told by HTTP what happens here, signed as Standard Webhooks has it, at least once.
//!
//! What happens is written down by the query that makes it happen ([`crate::db`], outbox). `fan_out` makes of it a delivery for each
//! endpoint that wants it, the `dispatcher` has a sender for each endpoint, and a sender sends what is due. All of these run in every
//! instance; leases keep them apart.

mod addresses;
mod dispatcher;
mod exchange;
mod fan_out;
mod payload;
mod purge;
mod requests;
mod retries;
mod sender;
mod target;
mod turn;
mod view;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use garde::Validate;
use tokio::sync::Notify;

pub use self::dispatcher::WebhookDispatcher;
pub use self::fan_out::WebhookFanOut;
pub use self::purge::WebhookPurge;
pub use self::requests::{CreateEndpoint, PatchEndpoint};
pub use self::view::{DeliveryView, EndpointView};
use super::accounts::Identity;
use super::admin_log::{self, Noted};
use super::page::Page;
use crate::config::Config;
use crate::db::{ConnectionShare, Db, DbConn, Endpoint, EndpointChange, NewDelivery, NewEndpoint};
use crate::error::{Error, Result};
use crate::model::{DeliveryId, DeliveryStatus, EndpointId, EventType, EventTypes, Timestamp};

/// Endpoints at most: each has threads of its own.
const MAX_ENDPOINTS: i64 = 32;
/// How long the secret of before signs beside a new one.
const OLD_SECRET_SIGNS: Duration = Duration::from_secs(86_400);
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;

/// What administrators do with endpoints.
pub struct Webhooks {
    db: Db,
    allow_private: bool,
    /// Wakes the dispatcher.
    wake: Arc<Notify>,
}

impl Webhooks {
    /// Keeps endpoints in `db`. `wake`: the dispatcher's.
    pub fn new(db: Db, config: &Config, wake: Arc<Notify>) -> Self {
        Self { db, allow_private: config.webhooks.allow_private, wake }
    }

    /// Looks which events somebody wants to be told of. Until that is known, all of them are written down.
    pub async fn read_wanted_events(&self) -> Result<()> {
        let endpoints = self.db.run_first(|conn| Box::pin(async move { conn.list_endpoints().await })).await?;
        self.db.set_wanted_events(wanted(&endpoints));
        Ok(())
    }

    /// Registers an endpoint. Its secret is shown this once.
    pub async fn create(&self, by: Identity, request: CreateEndpoint) -> Result<EndpointView> {
        request.validate()?;
        let url = target::parse(&request.url, self.allow_private)?;
        target::check_name(&url, self.allow_private).await?;
        let events = request.events.unwrap_or_else(EventTypes::all);
        let secret = new_secret();
        let shown = secret.clone();
        let made = self.db.transaction(move |conn| {
            Box::pin(async move {
                if conn.count_endpoints().await? >= MAX_ENDPOINTS {
                    return Err(Error::TooManyWebhooks(MAX_ENDPOINTS));
                }
                let now = conn.now().await?;
                let endpoint = NewEndpoint {
                    url: request.url,
                    events: events.stored(),
                    description: request.description,
                    active: true,
                    secret,
                    created_at: now,
                    updated_at: now,
                };
                let id = conn.insert_endpoint(&endpoint).await?;
                let endpoint = find(conn, id).await?;
                let what = format!("url {}, events {}", target::origin(&endpoint.url), endpoint.events().stored());
                let noted = admin_log::note(conn, by, "Registered a webhook", object(id), what, None).await?;
                Ok((endpoint, noted, now))
            })
        });
        let (endpoint, noted, now) = made.await?;
        self.changed(&noted).await;
        Ok(EndpointView::of(endpoint, now).with_secret(shown))
    }

    /// Endpoints, the newest first.
    pub async fn list(&self, cursor: Option<EndpointId>, limit: usize) -> Result<Page<EndpointView>> {
        let mut endpoints = self
            .db
            .read_within_share(ConnectionShare::Orders, |conn| {
                Box::pin(async move { Ok::<_, Error>(conn.list_endpoints().await?) })
            })
            .await?;
        // There are so few that they are read together.
        endpoints.retain(|endpoint| cursor.is_none_or(|cursor| endpoint.id < cursor));
        let now = Timestamp::now();
        let items = endpoints.into_iter().map(|endpoint| EndpointView::of(endpoint, now)).collect();
        Ok(Page::cut(items, limit, None, |endpoint: &EndpointView| endpoint.id.to_string()))
    }

    /// One endpoint.
    pub async fn get(&self, id: EndpointId) -> Result<EndpointView> {
        let endpoint = self.db.read_within_share(ConnectionShare::Orders, move |conn| Box::pin(find(conn, id))).await?;
        Ok(EndpointView::of(endpoint, Timestamp::now()))
    }

    /// Changes an endpoint.
    pub async fn patch(&self, by: Identity, id: EndpointId, request: PatchEndpoint) -> Result<EndpointView> {
        request.validate()?;
        if let Some(url) = &request.url {
            target::check_name(&target::parse(url, self.allow_private)?, self.allow_private).await?;
        }
        let changed = self.db.transaction(move |conn| {
            Box::pin(async move {
                let before = conn.lock_endpoint(id).await?.ok_or(Error::WebhookNotFound)?;
                let now = conn.now().await?;
                // Whoever switches it on again, or leads it elsewhere, has done something about what was wrong.
                let is_new_start = (request.active == Some(true) && !before.active) || request.url.is_some();
                let change = EndpointChange {
                    url: request.url,
                    events: request.events.map(EventTypes::stored),
                    description: request.description,
                    active: request.active,
                    failing_since: is_new_start.then_some(None),
                    off_reason: request.active.map(|_| None),
                    updated_at: Some(now),
                    ..EndpointChange::default()
                };
                conn.change_endpoint(id, &change).await?;
                let endpoint = find(conn, id).await?;
                let noted =
                    admin_log::note(conn, by, "Changed a webhook", object(id), changes(&before, &endpoint), None)
                        .await?;
                Ok::<_, Error>((endpoint, noted, now))
            })
        });
        let (endpoint, noted, now) = changed.await?;
        self.changed(&noted).await;
        Ok(EndpointView::of(endpoint, now))
    }

    /// Deletes an endpoint, and with it what it was not told yet.
    pub async fn delete(&self, by: Identity, id: EndpointId) -> Result<()> {
        let deleted = self.db.transaction(move |conn| {
            Box::pin(async move {
                let endpoint = conn.lock_endpoint(id).await?.ok_or(Error::WebhookNotFound)?;
                conn.delete_endpoint(id).await?;
                let what = format!("url {}", target::origin(&endpoint.url));
                admin_log::note(conn, by, "Deleted a webhook", object(id), what, None).await
            })
        });
        let noted = deleted.await?;
        self.changed(&noted).await;
        Ok(())
    }

    /// Gives an endpoint a new secret, shown this once; the one of before signs beside it for a day.
    pub async fn rotate_secret(&self, by: Identity, id: EndpointId) -> Result<EndpointView> {
        let secret = new_secret();
        let shown = secret.clone();
        let rotated = self.db.transaction(move |conn| {
            Box::pin(async move {
                let before = conn.lock_endpoint(id).await?.ok_or(Error::WebhookNotFound)?;
                let now = conn.now().await?;
                let change = EndpointChange {
                    secret: Some(secret),
                    old_secret: Some(Some(before.secret)),
                    old_secret_until: Some(Some(now.after(OLD_SECRET_SIGNS))),
                    updated_at: Some(now),
                    ..EndpointChange::default()
                };
                conn.change_endpoint(id, &change).await?;
                let what = "the old one signs for a day".to_owned();
                let noted = admin_log::note(conn, by, "Rotated a webhook's secret", object(id), what, None).await?;
                Ok::<_, Error>((find(conn, id).await?, noted, now))
            })
        });
        let (endpoint, noted, now) = rotated.await?;
        self.changed(&noted).await;
        Ok(EndpointView::of(endpoint, now).with_secret(shown))
    }

    /// Sends an endpoint something, to try it out.
    pub async fn test(&self, id: EndpointId) -> Result<DeliveryView> {
        let told = self.db.transaction(move |conn| {
            Box::pin(async move {
                let endpoint = find(conn, id).await?;
                let now = conn.now().await?;
                let data = serde_json::json!({"webhook_id": endpoint.id, "description": endpoint.description});
                let kind = EventType::WebhookTest;
                let (number, event, object) = conn.insert_single_event(kind, id.get(), data.to_string(), now).await?;
                let delivery = NewDelivery::new(id, number, kind, (event, object), now, now);
                conn.insert_deliveries(vec![delivery]).await?;
                conn.find_delivery_of(id, number).await?.ok_or(Error::DeliveryNotFound)
            })
        });
        let delivery = told.await?;
        self.wake.notify_one();
        Ok(DeliveryView::of(delivery))
    }

    /// What an endpoint was told and is to be told, the newest first.
    pub async fn deliveries(
        &self,
        id: EndpointId,
        status: Option<DeliveryStatus>,
        cursor: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Page<DeliveryView>> {
        let wanted = limit as i64 + 1;
        // One by one, as their index has them.
        let statuses = match status {
            Some(status) => vec![status],
            None => vec![DeliveryStatus::Pending, DeliveryStatus::Delivered, DeliveryStatus::Failed],
        };
        let read = self.db.read_within_share(ConnectionShare::Orders, move |conn| {
            Box::pin(async move {
                find(conn, id).await?;
                let (mut rows, mut keys) = (Vec::new(), Vec::new());
                for status in statuses {
                    let page = conn.list_deliveries(id, status, cursor, wanted).await?;
                    rows.extend(page.rows);
                    keys.extend(page.keys);
                }
                Ok::<_, Error>((rows, keys))
            })
        });
        let (mut rows, mut keys) = read.await?;
        // One that was tried in between is found twice; what was read last is how it stands.
        rows.reverse();
        rows.sort_by_key(|row| std::cmp::Reverse(row.id.get()));
        rows.dedup_by_key(|row| row.id.get());
        keys.sort_unstable_by(|a, b| b.cmp(a));
        keys.dedup();
        keys.truncate(limit + 1);
        let oldest = if keys.len() > limit { keys.last().copied() } else { None };
        rows.retain(|row| oldest.is_none_or(|oldest| row.id.get() >= oldest));
        let items = rows.into_iter().map(DeliveryView::of).collect();
        Ok(Page::cut(items, limit, oldest.map(|id| id.to_string()), |delivery: &DeliveryView| delivery.id.to_string()))
    }

    /// Has a delivery tried at once, whatever came of it before.
    pub async fn retry(&self, id: EndpointId, delivery: DeliveryId) -> Result<DeliveryView> {
        let retried = self.db.transaction(move |conn| {
            Box::pin(async move {
                find(conn, id).await?;
                conn.find_delivery(id, delivery).await?.ok_or(Error::DeliveryNotFound)?;
                let now = conn.now().await?;
                conn.retry_delivery(delivery, now).await?;
                conn.find_delivery(id, delivery).await?.ok_or(Error::DeliveryNotFound)
            })
        });
        let delivery = retried.await?;
        self.wake.notify_one();
        Ok(DeliveryView::of(delivery))
    }

    /// After the commit: what is written down from now on, and what is sent, is by the endpoints as they are now.
    async fn changed(&self, noted: &Noted) {
        noted.log();
        if let Err(error) = self.read_wanted_events().await {
            // The dispatcher looks again within a second.
            tracing::debug!(%error, "Could not look who listens");
        }
        self.wake.notify_one();
    }
}

async fn find(conn: &mut DbConn, id: EndpointId) -> Result<Endpoint> {
    conn.find_endpoint(id).await?.ok_or(Error::WebhookNotFound)
}

/// What somebody wants to be told of.
fn wanted(endpoints: &[Endpoint]) -> EventTypes {
    endpoints.iter().filter(|endpoint| endpoint.active).flat_map(|endpoint| endpoint.events().iter()).collect()
}

/// As Standard Webhooks writes a secret.
fn new_secret() -> String {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).expect("the operating system has random numbers, or nothing here is safe");
    format!("whsec_{}", STANDARD.encode(bytes))
}

fn object(id: EndpointId) -> String {
    format!("webhook {id}")
}

/// For the administrators' log. Of addresses without what may be a secret.
fn changes(before: &Endpoint, after: &Endpoint) -> String {
    let mut changes = Vec::new();
    if before.url != after.url {
        changes.push(format!("url {} -> {}", target::origin(&before.url), target::origin(&after.url)));
    }
    if before.events() != after.events() {
        changes.push(format!("events {} -> {}", before.events().stored(), after.events().stored()));
    }
    if before.active != after.active {
        changes.push(format!("active {} -> {}", before.active, after.active));
    }
    if before.description != after.description {
        changes.push(format!("description {:?} -> {:?}", before.description, after.description));
    }
    if changes.is_empty() { "none".to_owned() } else { changes.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::webhook_key;

    #[test]
    fn a_secret_is_new_each_time_and_as_standard_webhooks_writes_it() {
        let (first, second) = (new_secret(), new_secret());
        assert_ne!(first, second);
        assert_eq!(webhook_key(&first).unwrap().len(), SECRET_BYTES);
    }
}
