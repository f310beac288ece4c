//! What administrators changed: a row beside each change, in its transaction, and a line in the log after it.

pub use crate::db::AdminAction;
use crate::db::{Db, DbConn, NewAdminAction, PageOf};
use crate::error::Result;
use crate::model::Timestamp;
use crate::services::accounts::Identity;
use crate::services::page::Page;

/// A change that is noted and, once it is committed, to be logged.
#[derive(Debug, Clone)]
#[must_use = "it is to be logged after the commit"]
pub(in crate::services) struct Noted(NewAdminAction);

/// Notes a change in the transaction that makes it. `what` is a sentence, `object` what it is about, such as `product 7`.
pub(in crate::services) async fn note(
    conn: &mut DbConn,
    by: Identity,
    what: &str,
    object: String,
    changes: String,
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
    };
    conn.log_admin_action(&action).await?;
    Ok(Noted(action))
}

impl Noted {
    /// A change that was noted before, by somebody whose account is not looked for now.
    pub(in crate::services) fn without_name(by: Identity, what: &str, object: String, changes: String) -> Self {
        let (user_id, changed_at) = (by.user_id, Timestamp::now());
        Self(NewAdminAction { user_id, user_name: None, action: what.to_owned(), object, changes, changed_at })
    }

    /// Writes the line. Names and changes are quoted: they are somebody's text.
    pub(in crate::services) fn log(&self) {
        let NewAdminAction { user_id, user_name, action, object, changes, .. } = &self.0;
        tracing::info!(
            admin.id = %user_id,
            admin.name = user_name.as_deref().unwrap_or("-"),
            object,
            changes,
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

    /// The newest first.
    pub async fn list(&self, cursor: Option<i64>, limit: usize) -> Result<Page<AdminAction>> {
        let wanted = limit as i64 + 1;
        let listed =
            self.db.read_page(PageOf::Orders, move |conn| Box::pin(conn.list_admin_actions(cursor, wanted))).await?;
        let left_out = if listed.count > limit { listed.keys.last().map(i64::to_string) } else { None };
        Ok(Page::cut(listed.rows, limit, left_out, |action| action.id.to_string()))
    }
}
