//! What administrators changed: a row beside each change, in its transaction, and a line in the log after it.

pub use crate::db::AdminAction;
use crate::db::{ConnectionShare, Db, DbConn, NewAdminAction};
use crate::error::Result;
use crate::model::{AdminActionId, Timestamp, is_plain, is_visible};
use crate::services::accounts::Identity;
use crate::services::page::Page;

/// As many as the tables hold.
pub(in crate::services) const MAX_REASON_CHARS: usize = 255;

/// Why an administrator changes something.
pub(in crate::services) fn is_reason(text: &str, (): &()) -> garde::Result {
    if !is_visible(text) || text.chars().count() > MAX_REASON_CHARS {
        return Err(garde::Error::new(format!("must be 1 to {MAX_REASON_CHARS} characters, and not all invisible")));
    }
    is_plain(text).map_err(garde::Error::new)
}

/// A change that is noted and, once it is committed, to be logged.
#[derive(Debug, Clone)]
#[must_use = "it is to be logged after the commit"]
pub(in crate::services) struct Noted(NewAdminAction);

/// Notes a change in the transaction that makes it. `what` is a sentence, `object` what it is about, such as `product 7`.
/// `reason`: why, if the administrator said so.
pub(in crate::services) async fn note(
    conn: &mut DbConn,
    by: Identity,
    what: &str,
    object: String,
    changes: String,
    reason: Option<String>,
) -> Result<Noted> {
    // One of the shop's own directory has no name here.
    let user_name = conn.find_user(by.user_id).await?.map(|admin| admin.username);
    let action = NewAdminAction {
        user_id: by.user_id,
        user_name,
        action: what.to_owned(),
        object,
        changes,
        changed_at: Timestamp::now(),
        reason,
    };
    conn.log_admin_action(&action).await?;
    Ok(Noted(action))
}

impl Noted {
    /// A change that was noted before, by somebody whose account is not looked for now.
    pub(in crate::services) fn without_name(by: Identity, what: &str, object: String, changes: String) -> Self {
        let (user_id, changed_at) = (by.user_id, Timestamp::now());
        Self(NewAdminAction {
            user_id,
            user_name: None,
            action: what.to_owned(),
            object,
            changes,
            changed_at,
            reason: None,
        })
    }

    /// Writes the line. Names and changes are quoted: they are somebody's text.
    pub(in crate::services) fn log(&self) {
        let NewAdminAction { user_id, user_name, action, object, changes, reason, .. } = &self.0;
        tracing::info!(
            admin.id = %user_id,
            admin.name = user_name.as_deref().unwrap_or("-"),
            object,
            changes,
            reason,
            "{action}"
        );
    }
}

/// What administrators changed, for an administrator to read.
pub struct AdminLog {
    db: Db,
}

impl AdminLog {
    /// Reads `db`.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// The newest first; with `object`, such as `product 7`, only what was done to it.
    pub async fn list(
        &self,
        object: Option<String>,
        cursor: Option<AdminActionId>,
        limit: usize,
    ) -> Result<Page<AdminAction>> {
        let cursor = cursor.map(i64::from);
        let wanted = limit as i64 + 1;
        let listed = self
            .db
            .read_within_share(ConnectionShare::Orders, move |conn| {
                Box::pin(conn.list_admin_actions(cursor, object.clone(), wanted))
            })
            .await?;
        let left_out = if listed.count > limit { listed.keys.last().map(i64::to_string) } else { None };
        Ok(Page::cut(listed.rows, limit, left_out, |action| action.id.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_plain_visible_and_short() {
        for good in ["Bank transfer 4711", "ß", &"x".repeat(255)] {
            assert!(is_reason(good, &()).is_ok(), "{good:?}");
        }
        for bad in ["", "  ", "a\nb", "\u{202e}abc", &"x".repeat(256)] {
            assert!(is_reason(bad, &()).is_err(), "{bad:?}");
        }
    }
}
