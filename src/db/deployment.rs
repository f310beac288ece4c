//! Queries on `deployment` and `instances`: which Redis and which queue belong to this database. MySQL only.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;

use super::conn::DbConn;
use super::error::{DbError, DbResult};
use super::gates::RETIRED;
use super::schema::deployment;
use crate::model::{ProductId, Timestamp};

/// What the deployment uses, as its database says.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct DeploymentRow {
    /// Random, the same for ever.
    pub deployment_id: String,
    /// What lies in its Redis.
    pub redis_id: Option<String>,
    /// Where that was.
    pub redis_name: Option<String>,
    /// What lies in its queue.
    pub queue_id: Option<String>,
    /// Where that was.
    pub queue_name: Option<String>,
}

/// What an instance uses.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct InstanceUse {
    /// What lies in its Redis; `None`: it has not been read yet.
    #[diesel(sql_type = Nullable<Text>)]
    pub redis_id: Option<String>,
    /// Where that is.
    #[diesel(sql_type = Text)]
    pub redis_name: String,
    /// What lies in its queue; `None`: it has not been read yet.
    #[diesel(sql_type = Nullable<Text>)]
    pub queue_id: Option<String>,
    /// Where that is.
    #[diesel(sql_type = Text)]
    pub queue_name: String,
}

/// The epochs that were begun after some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochsBegun {
    /// What time it was when they were read.
    pub now: Timestamp,
    /// The newest of each product.
    pub begun: Vec<(ProductId, i64)>,
}

/// What an instance knows of the protocol; each knows what those with a smaller number know.
#[derive(Debug, Clone, Copy)]
pub enum Knows {
    /// Late payments at the gate.
    LatePayments = 2,
    /// Messages with purchases of several products.
    Bundles = 3,
}

/// What this program knows.
const PROTOCOL: i64 = Knows::Bundles as i64;

/// An instance that has not said for so many seconds that it runs counts for nothing.
const SEEN_WITHIN_SECONDS: u32 = 3;
/// After this, nobody needs to know of it any more: who looks why an instance has died finds what it used until then.
const DEAD_AFTER_MINUTES: u32 = 10;
/// At a time.
const FORGOTTEN_MAX: u32 = 100;

#[derive(QueryableByName)]
struct InstanceId {
    #[diesel(sql_type = Text)]
    id: String,
}

#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = SqlTimestamp)]
    now: Timestamp,
}

#[derive(QueryableByName)]
struct EpochBegun {
    #[diesel(sql_type = BigInt)]
    id: ProductId,
    #[diesel(sql_type = BigInt)]
    gate_epoch: i64,
}

impl DbConn {
    /// The one row of `deployment`; made, with `new_id`, if there is none.
    pub async fn deployment(&mut self, new_id: &str) -> DbResult<DeploymentRow> {
        let conn = mysql(self)?;
        let find = || {
            deployment::table
                .select((
                    deployment::deployment_id,
                    deployment::redis_id,
                    deployment::redis_name,
                    deployment::queue_id,
                    deployment::queue_name,
                ))
                .filter(deployment::id.eq(1))
        };
        if let Some(row) = find().get_result(conn).await.optional()? {
            return Ok(row);
        }
        let new = (deployment::id.eq(1), deployment::deployment_id.eq(new_id));
        diesel::insert_or_ignore_into(deployment::table).values(new).execute(conn).await?;
        Ok(find().get_result(conn).await?)
    }

    /// Says what this instance uses, now.
    pub async fn report_instance(&mut self, id: &str, uses: &InstanceUse) -> DbResult<()> {
        let report = sql_query(
            "INSERT INTO instances (id, redis_id, redis_name, queue_id, queue_name, protocol, seen_at) \
             VALUES (?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(3)) \
             ON DUPLICATE KEY UPDATE redis_id = VALUES(redis_id), redis_name = VALUES(redis_name), \
                 queue_id = VALUES(queue_id), queue_name = VALUES(queue_name), protocol = VALUES(protocol), \
                 seen_at = VALUES(seen_at)",
        );
        let report = report
            .bind::<Text, _>(id)
            .bind::<Nullable<Text>, _>(&uses.redis_id)
            .bind::<Text, _>(&uses.redis_name)
            .bind::<Nullable<Text>, _>(&uses.queue_id)
            .bind::<Text, _>(&uses.queue_name)
            .bind::<BigInt, _>(PROTOCOL);
        report.execute(mysql(self)?).await?;
        Ok(())
    }

    /// What the other instances use that run.
    pub async fn other_instances(&mut self, id: &str) -> DbResult<Vec<InstanceUse>> {
        let others = sql_query(format!(
            "SELECT redis_id, redis_name, queue_id, queue_name FROM instances \
             WHERE id <> ? AND seen_at > UTC_TIMESTAMP(3) - INTERVAL {SEEN_WITHIN_SECONDS} SECOND"
        ));
        Ok(others.bind::<Text, _>(id).load(mysql(self)?).await?)
    }

    /// Whether every instance knows this that has run within `DEAD_AFTER_MINUTES`. Once it is so, it stays so: a program of a
    /// version before does not start on this schema. Always in a file, which has one process.
    pub async fn all_instances_know(&mut self, what: Knows) -> DbResult<bool> {
        let Self::MySql(conn) = self else { return Ok(true) };
        let old = sql_query(format!(
            "SELECT id FROM instances WHERE protocol < ? \
             AND seen_at > UTC_TIMESTAMP(3) - INTERVAL {DEAD_AFTER_MINUTES} MINUTE LIMIT 1"
        ));
        let old: Vec<InstanceId> = old.bind::<BigInt, _>(what as i64).load(&mut **conn).await?;
        Ok(old.is_empty())
    }

    /// Forgets this instance, which stops.
    pub async fn forget_instance(&mut self, id: &str) -> DbResult<()> {
        sql_query("DELETE FROM instances WHERE id = ?").bind::<Text, _>(id).execute(mysql(self)?).await?;
        Ok(())
    }

    /// Forgets some of those that have not been seen for `DEAD_AFTER_MINUTES`: they have died. One that was only away says
    /// again what it uses.
    pub async fn forget_dead_instances(&mut self) -> DbResult<()> {
        let dead = sql_query(format!(
            "SELECT id FROM instances WHERE seen_at < UTC_TIMESTAMP(3) - INTERVAL {DEAD_AFTER_MINUTES} MINUTE \
             LIMIT {FORGOTTEN_MAX}"
        ));
        // One by one, by their keys: a range would lock the rows of those that are running, too.
        for InstanceId { id } in dead.load(mysql(self)?).await? {
            self.forget_instance(&id).await?;
        }
        Ok(())
    }

    /// Makes this the Redis of the deployment, if `before` still is.
    pub async fn change_redis(&mut self, before: Option<&str>, id: &str, name: &str) -> DbResult<()> {
        let change = sql_query("UPDATE deployment SET redis_id = ?, redis_name = ? WHERE redis_id <=> ?");
        let change = change.bind::<Text, _>(id).bind::<Text, _>(name).bind::<Nullable<Text>, _>(before);
        change.execute(mysql(self)?).await?;
        Ok(())
    }

    /// Makes this the queue of the deployment, if `before` still is.
    pub async fn change_queue(&mut self, before: Option<&str>, id: &str, name: &str) -> DbResult<()> {
        let change = sql_query("UPDATE deployment SET queue_id = ?, queue_name = ? WHERE queue_id <=> ?");
        let change = change.bind::<Text, _>(id).bind::<Text, _>(name).bind::<Nullable<Text>, _>(before);
        change.execute(mysql(self)?).await?;
        Ok(())
    }

    /// The epochs that were begun after `since`; `None`: ever. A product's first epoch was not begun.
    pub async fn epochs_begun(&mut self, since: Option<Timestamp>) -> DbResult<EpochsBegun> {
        let conn = mysql(self)?;
        let Now { now } = sql_query("SELECT UTC_TIMESTAMP(3) AS now").get_result(conn).await?;
        let begun = sql_query("SELECT id, gate_epoch FROM products WHERE gate_begun_at >= ?");
        let begun: Vec<EpochBegun> =
            begun.bind::<SqlTimestamp, _>(since.unwrap_or(Timestamp::EARLIEST)).load(conn).await?;
        Ok(EpochsBegun { now, begun: begun.into_iter().map(|row| (row.id, row.gate_epoch)).collect() })
    }

    /// Begins epoch `next` after `epoch`, on this server. False: another instance was faster, or `redis_id` is not what
    /// the deployment uses, so that no two servers can take a product from each other in turn. `retired`: only after a gate
    /// that was retired; then nothing of older epochs is on its way, so the fence is raised at once.
    pub async fn begin_epoch(
        &mut self,
        id: ProductId,
        epoch: i64,
        next: i64,
        server_id: &str,
        redis_id: &str,
        retired: bool,
    ) -> DbResult<bool> {
        let (fence, only) = match retired {
            true => (format!(", gate_fence = {next}"), format!(" AND gate_home = '{RETIRED}'")),
            false => Default::default(),
        };
        let begin = sql_query(format!(
            "UPDATE products SET gate_epoch = ?{fence}, gate_home = ?, gate_begun_at = UTC_TIMESTAMP(3) WHERE id = ? AND gate_epoch = ?{only} \
             AND EXISTS (SELECT 1 FROM deployment WHERE redis_id = ?)",
        ));
        let begin =
            begin.bind::<BigInt, _>(next).bind::<Text, _>(server_id).bind::<BigInt, _>(id).bind::<BigInt, _>(epoch);
        Ok(begin.bind::<Text, _>(redis_id).execute(mysql(self)?).await? == 1)
    }
}

fn mysql(conn: &mut DbConn) -> DbResult<&mut diesel_async::AsyncMysqlConnection> {
    match conn {
        DbConn::MySql(conn) => Ok(&mut **conn),
        DbConn::Sqlite(_) => Err(DbError::Unreachable("a data folder knows no other stores".to_owned())),
    }
}
