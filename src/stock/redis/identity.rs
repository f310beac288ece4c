//! Whose gates these are: one key beside them holds the id of the deployment, and a random id of what this Redis holds,
//! another one when it was emptied or is another Redis. So the instances of a deployment know that they ask the same one.

use deadpool_redis::redis;
use uuid::Uuid;

use super::gate::RedisGate;
use super::replies::nonsense;
use crate::stock::types::{GateError, GateOwner};

impl RedisGate {
    /// Reads whose gates these are, and says that they are this deployment's if they are nobody's.
    pub(in crate::stock) async fn owner(&self, deployment: &str) -> Result<GateOwner, GateError> {
        self.owner_after("SETNX", deployment).await
    }

    /// Says that the gates are this deployment's, also if they were another one's before.
    pub(in crate::stock) async fn take(&self, deployment: &str) -> Result<GateOwner, GateError> {
        self.owner_after("SET", deployment).await
    }

    async fn owner_after(&self, set: &str, deployment: &str) -> Result<GateOwner, GateError> {
        let key = self.server.keys.deployment();
        let shard = self.server.shards.of_key(&key).await?;
        let cell = &shard.owner_asker;
        let link = self.server.link(&shard, cell).await?;
        let mut ask = redis::pipe();
        ask.cmd(set).arg(&key).arg(format!("{deployment} {}", Uuid::new_v4())).ignore();
        ask.cmd("GET").arg(&key);
        let reply = ask.query_async::<(String,)>(&mut link.conn()).await;
        let (found,) = self.server.answered(&shard, cell, &link, reply)?;
        let (deployment, redis_id) = found.split_once(' ').ok_or_else(|| nonsense(&found))?;
        Ok(GateOwner { deployment: deployment.to_owned(), redis_id: redis_id.to_owned() })
    }
}
