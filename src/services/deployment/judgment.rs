//! Whether what an instance uses is what the deployment uses, and if not, in which setting they differ. No I/O.

use crate::db::{DeploymentRow, InstanceUse};

/// Why an instance must not sell.
pub(super) enum Mismatch {
    /// It is configured to use something else than the deployment does.
    Misconfigured(String),
    /// Instances that run use something else of the same name; some may not have noticed yet that it was emptied.
    OthersDiffer(String),
    /// The key in Redis that says whose gates these are holds something else.
    Unreadable(String),
}

impl Mismatch {
    /// In words, with the setting that leads elsewhere.
    pub(super) fn text(self) -> String {
        match self {
            Self::Misconfigured(text) | Self::OthersDiffer(text) | Self::Unreadable(text) => text,
        }
    }
}

/// What an instance uses is what the deployment uses, as far as the instance knows it.
pub(super) fn uses_row(uses: &InstanceUse, row: &DeploymentRow) -> bool {
    (uses.redis_id.is_none() || uses.redis_id == row.redis_id)
        && (uses.queue_id.is_none() || uses.queue_id == row.queue_id)
}

/// Whether an instance that uses this may sell; `others`: those that run; `redis_key`: the setting that says where its Redis is.
pub(super) fn judge(
    uses: &InstanceUse,
    row: &DeploymentRow,
    others: &[InstanceUse],
    redis_key: &str,
) -> std::result::Result<(), Mismatch> {
    let redis = Side { own: &uses.redis_id, own_name: &uses.redis_name, row: &row.redis_id, row_name: &row.redis_name };
    redis.judge(&redis_keys(redis_key), others.iter().map(|other| (&other.redis_id, &other.redis_name)))?;
    let queue = Side { own: &uses.queue_id, own_name: &uses.queue_name, row: &row.queue_id, row_name: &row.queue_name };
    queue.judge(
        &["rabbitmq.url", "rabbitmq.url", "rabbitmq.queue"],
        others.iter().map(|other| (&other.queue_id, &other.queue_name)),
    )
}

/// The settings behind the parts of a Redis' name; `first` says where it is.
fn redis_keys(first: &str) -> [&str; 3] {
    [first, "redis.db", "redis.key_prefix"]
}

/// What to tell an operator whose Redis, `own`, holds the gates of another deployment. If the database names another Redis, `row`, a
/// setting is mistyped, most likely: then this does not advise `adopt --take`, which would stop the other shop.
pub(super) fn foreign_redis(own: &str, row: Option<&str>, redis_key: &str) -> String {
    match row {
        Some(row) if row != own => format!(
            "{key}: the Redis {own} belongs to another deployment, and this one uses {row}: correct {key}",
            key = differing_key(&redis_keys(redis_key), own, row)
        ),
        _ => format!(
            "redis.key_prefix: the Redis {own} holds the gates of another deployment; if its database is gone: \
             seckill deployment adopt --take"
        ),
    }
}

/// Redis, or the queue: what an instance uses, and what the database says.
struct Side<'a> {
    own: &'a Option<String>,
    own_name: &'a str,
    row: &'a Option<String>,
    row_name: &'a Option<String>,
}

impl Side<'_> {
    /// `keys`: the settings behind the parts of a name.
    fn judge<'o>(
        &self,
        keys: &[&str],
        others: impl Iterator<Item = (&'o Option<String>, &'o String)>,
    ) -> std::result::Result<(), Mismatch> {
        let (Some(own), Some(row)) = (self.own, self.row) else { return Ok(()) };
        if own == row {
            return Ok(());
        }
        let row_name = self.row_name.as_deref().unwrap_or_default();
        if row_name != self.own_name {
            return Err(Mismatch::Misconfigured(format!(
                "{key}: this instance uses {own}, but the deployment uses {row_name}: correct {key}. Only if the \
                 deployment moves to {own} on purpose: `seckill deployment adopt` with this configuration",
                key = differing_key(keys, self.own_name, row_name),
                own = self.own_name
            )));
        }
        let mut others = others;
        match others.find(|(id, _)| id.as_ref().is_some_and(|id| id != own)) {
            None => Ok(()),
            Some((_, other)) => Err(Mismatch::OthersDiffer(format!(
                "{}: this instance reaches another server at {} than the instances that run do at {other}",
                keys[0], self.own_name
            ))),
        }
    }
}

/// The setting behind the first part in which two names differ.
fn differing_key<'k>(keys: &[&'k str], own: &str, other: &str) -> &'k str {
    let differing = own.split('/').zip(other.split('/')).position(|(own, other)| own != other);
    keys[differing.unwrap_or(0).min(keys.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(redis: Option<&str>, redis_name: &str, queue: Option<&str>, queue_name: &str) -> InstanceUse {
        InstanceUse {
            redis_id: redis.map(str::to_owned),
            redis_name: redis_name.to_owned(),
            queue_id: queue.map(str::to_owned),
            queue_name: queue_name.to_owned(),
        }
    }

    fn row(redis: Option<&str>, queue: Option<&str>) -> DeploymentRow {
        DeploymentRow {
            deployment_id: "d".to_owned(),
            redis_id: redis.map(str::to_owned),
            redis_name: Some("a:1/0/seckill:".to_owned()),
            queue_id: queue.map(str::to_owned),
            queue_name: Some("b:2/%2f/orders".to_owned()),
        }
    }

    fn problem(uses: &InstanceUse, others: &[InstanceUse]) -> Option<String> {
        judge(uses, &row(Some("r"), Some("q")), others, "redis.addr").err().map(Mismatch::text)
    }

    #[test]
    fn what_leads_elsewhere_is_named() {
        let (redis, queue) = ("a:1/0/seckill:", "b:2/%2f/orders");
        assert_eq!(problem(&uses(Some("r"), "other-name:1/0/seckill:", Some("q"), queue), &[]), None, "the same Redis");
        assert_eq!(problem(&uses(None, redis, None, queue), &[]), None, "not known yet");
        for (name, key) in [
            ("x:1/0/seckill:", "redis.addr: "),
            ("a:1/1/seckill:", "redis.db: "),
            ("a:1/0/other:", "redis.key_prefix: "),
        ] {
            let text = problem(&uses(Some("x"), name, Some("q"), queue), &[]).unwrap();
            assert!(text.starts_with(key) && text.contains("deployment adopt"), "{text}");
        }
        for (name, key) in [
            ("b:3/%2f/orders", "rabbitmq.url: "),
            ("b:2/v/orders", "rabbitmq.url: "),
            ("b:2/%2f/x", "rabbitmq.queue: "),
        ] {
            let text = problem(&uses(Some("r"), redis, Some("x"), name), &[]).unwrap();
            assert!(text.starts_with(key), "{text}");
        }
    }

    #[test]
    fn a_mistyped_key_that_leads_to_another_shop_is_named_and_nothing_is_to_be_taken() {
        let (own, redis_key) = ("a:1/0/seckill:", "redis.addr");
        for (row, key) in
            [("a:1/1/seckill:", "redis.db: "), ("b:1/0/seckill:", "redis.addr: "), ("a:1/0/x:", "redis.key_prefix: ")]
        {
            let text = foreign_redis(own, Some(row), redis_key);
            assert!(text.starts_with(key) && text.contains(row) && !text.contains("--take"), "{text}");
        }
        for row in [None, Some(own)] {
            assert!(foreign_redis(own, row, redis_key).contains("--take"));
        }
    }

    #[test]
    fn what_was_emptied_is_taken_over_once_nobody_uses_what_was_there() {
        let emptied = uses(Some("new"), "a:1/0/seckill:", Some("q"), "b:2/%2f/orders");
        assert_eq!(problem(&emptied, &[]), None);
        assert_eq!(problem(&emptied, std::slice::from_ref(&emptied)), None, "the others have noticed");
        let unaware = uses(Some("r"), "a:1/0/seckill:", Some("q"), "b:2/%2f/orders");
        assert!(problem(&emptied, &[unaware]).unwrap().starts_with("redis.addr: "));
        let away = uses(None, "a:1/0/seckill:", None, "b:2/%2f/orders");
        assert_eq!(problem(&emptied, &[away]), None, "an instance that reaches no Redis sells nothing");
    }
}
