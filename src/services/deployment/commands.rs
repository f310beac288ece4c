//! What an operator has a deployment do, from the command line.

use uuid::Uuid;

use super::instance::{Membership, NO_OTHER_STORES};
use crate::db::{DeploymentRow, InstanceUse};
use crate::error::Error;
use crate::model::ProductId;
use crate::stock::GateError;

impl Membership {
    /// Makes what this configuration leads to the deployment's, whatever it was before; what that was. Instances that use
    /// something else sell nothing from then on. `take`: also if they belong to another deployment, whose database is gone.
    pub async fn adopt(&self, take: bool) -> std::result::Result<DeploymentRow, String> {
        let failed = |error: Error| error.to_string();
        let gate = self.gate.shared().ok_or(NO_OTHER_STORES)?;
        let id = self.id().await.map_err(failed)?;
        self.queue.join(&id, take).await?;
        let owner = if take { gate.take(&id).await } else { gate.owner(&id).await };
        let owner = owner.map_err(|error| match error {
            GateError::Protocol(problem) => self.spoiled(&problem),
            error => format!("{}: {error}", self.redis.key),
        })?;
        if owner.deployment != id {
            return Err(self.foreign(None));
        }
        let uses = InstanceUse {
            redis_id: Some(owner.redis_id),
            redis_name: self.redis.name.clone(),
            queue_id: Some(self.queue.identity().ok_or("rabbitmq.url: RabbitMQ does not answer")?),
            queue_name: self.queue_name.clone(),
        };
        let (row, _) = self.show().await?;
        self.take_over(&uses, row.clone()).await.map_err(failed)?;
        Ok(row)
    }

    /// What the deployment uses, and what the instances that run use.
    pub async fn show(&self) -> std::result::Result<(DeploymentRow, Vec<InstanceUse>), String> {
        self.gate.shared().ok_or(NO_OTHER_STORES)?;
        let (new, instance) = (Uuid::new_v4().to_string(), self.instance.clone());
        let shown = self.db.read(move |conn| {
            Box::pin(
                async move { Ok::<_, Error>((conn.deployment(&new).await?, conn.other_instances(&instance).await?)) },
            )
        });
        shown.await.map_err(|error| error.to_string())
    }

    /// Begins a new epoch of a product's gate; the new epoch. Running instances find the gate deposed within a second, close it and
    /// rebuild it from the live orders. What was promised stays promised.
    pub async fn rebuild_gate(&self, product: ProductId) -> std::result::Result<i64, String> {
        self.gate.shared().ok_or(NO_OTHER_STORES)?;
        self.join().await?;
        let failed = |error: Error| error.to_string();
        let redis_id = self.redis_id().await.map_err(failed)?;
        let row = self.db.read(move |conn| Box::pin(async move { Ok::<_, Error>(conn.gate_row(product).await?) }));
        let row = row.await.map_err(failed)?.ok_or_else(|| format!("there is no product {product}"))?;
        if row.is_retired() {
            let why = "the sale of product {} has ended and its gate was taken away; a later ends_at makes it anew";
            return Err(why.replace("{}", &product.to_string()));
        }
        let (epoch, next) = (row.epoch, row.epoch + 1);
        let begun = self.db.transaction(move |conn| {
            Box::pin(async move {
                Ok::<_, Error>(conn.begin_epoch(product, epoch, next, &row.server_id, &redis_id, false).await?)
            })
        });
        let begun = begun.await.map_err(failed)?;
        self.leave().await;
        begun.then_some(next).ok_or_else(|| "the gate is being rebuilt already".to_owned())
    }
}
