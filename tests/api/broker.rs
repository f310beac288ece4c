//! What tests do to RabbitMQ behind the application's back.

use amqprs::BasicProperties;
use amqprs::channel::{BasicGetArguments, BasicPublishArguments, Channel};
use amqprs::connection::{Connection, OpenConnectionArguments};
use seckill::config;
use secrecy::ExposeSecret;
use serde_json::json;

pub struct Broker {
    channel: Channel,
    _connection: Connection,
}

impl Broker {
    pub async fn connect(settings: &config::RabbitMq) -> Self {
        let url = url::Url::parse(settings.url.expose_secret()).unwrap();
        let arguments = OpenConnectionArguments::new(
            url.host_str().unwrap(),
            url.port().unwrap(),
            url.username(),
            url.password().unwrap(),
        );
        let connection = Connection::open(&arguments).await.expect("RabbitMQ");
        let channel = connection.open_channel(None).await.expect("a channel");
        Self { channel, _connection: connection }
    }

    /// Puts a message of any content into a queue.
    pub async fn publish(&self, queue: &str, body: impl Into<Vec<u8>>) {
        let target = BasicPublishArguments::new("", queue);
        self.channel.basic_publish(BasicProperties::default(), body.into(), target).await.unwrap();
    }

    /// Takes a message out of a queue: its reason header, if it has one, and its body.
    pub async fn take(&self, queue: &str) -> Option<(Option<String>, Vec<u8>)> {
        let arguments = BasicGetArguments::new(queue).no_ack(true).finish();
        let (_, properties, body) = self.channel.basic_get(arguments).await.unwrap()?;
        let reason = properties
            .headers()
            .and_then(|headers| headers.get(&"x-seckill-reason".try_into().unwrap()).map(ToString::to_string));
        Some((reason, body))
    }
}

/// Purchases as an instance would put them into the queue.
pub fn message(product: i64, epoch: i64, items: &[(String, i64)]) -> String {
    let items: Vec<_> = items.iter().map(|(order, user)| json!({"order_id": order, "user_id": user})).collect();
    json!({"v": 1, "kind": "purchases", "product_id": product, "epoch": epoch, "items": items}).to_string()
}
