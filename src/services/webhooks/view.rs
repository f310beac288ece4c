//! Endpoints and deliveries as administrators see them.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use super::payload::{event_name, object_name};
use crate::db::{Endpoint, WebhookDelivery};
use crate::model::{DeliveryId, DeliveryStatus, EndpointId, EventType, Timestamp};

/// An endpoint.
#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
pub struct EndpointView {
    /// Its id.
    pub id: EndpointId,
    url: String,
    events: Vec<EventType>,
    description: String,
    active: bool,
    /// Of the first failure since the last success.
    #[schema(required)]
    failing_since: Option<Timestamp>,
    /// Why it was switched off by itself.
    #[schema(required)]
    off_reason: Option<String>,
    /// Until when the secret of before signs, too.
    #[schema(required)]
    old_secret_until: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// Shown when it is made, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl EndpointView {
    pub(super) fn of(endpoint: Endpoint, now: Timestamp) -> Self {
        Self {
            id: endpoint.id,
            events: endpoint.events().iter().collect(),
            url: endpoint.url,
            description: endpoint.description,
            active: endpoint.active,
            failing_since: endpoint.failing_since,
            off_reason: endpoint.off_reason,
            old_secret_until: endpoint.old_secret_until.filter(|until| now < *until),
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
            secret: None,
        }
    }

    /// This once with its secret.
    pub(super) fn with_secret(mut self, secret: String) -> Self {
        self.secret = Some(secret);
        self
    }
}

fn object_id_schema() -> Object {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Integer, Type::String])).build()
}

/// A delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub struct DeliveryView {
    /// Its id.
    pub id: DeliveryId,
    /// `webhook-id`.
    event_id: String,
    r#type: EventType,
    /// What it is about: the id of an order, a payment or a product.
    #[schema(schema_with = object_id_schema)]
    object_id: Value,
    status: DeliveryStatus,
    tries: i64,
    #[schema(required)]
    last_status: Option<i64>,
    #[schema(required)]
    last_error: Option<String>,
    #[schema(required)]
    last_try_at: Option<Timestamp>,
    #[schema(required)]
    next_try_at: Option<Timestamp>,
    created_at: Timestamp,
    #[schema(required)]
    delivered_at: Option<Timestamp>,
}

impl DeliveryView {
    pub(super) fn of(delivery: WebhookDelivery) -> Self {
        Self {
            id: delivery.id,
            event_id: event_name(delivery.event()),
            r#type: delivery.event_type,
            object_id: object_name(delivery.event_type, delivery.object()),
            status: delivery.status,
            tries: delivery.tries,
            last_status: delivery.last_status,
            last_error: delivery.last_error,
            last_try_at: delivery.last_try_at,
            next_try_at: delivery.due_at,
            created_at: delivery.created_at,
            delivered_at: delivery.delivered_at,
        }
    }
}
