//! The administrator of a new deployment.

use std::path::Path;

use secrecy::ExposeSecret;

use super::error::StartError;
use crate::config::{self, Config};
use crate::data_dir::{self, ADMIN_PASSWORD, DataDir, forget_secret, random_password};
use crate::db::{Db, DbError};
use crate::model::{Account, Username};
use crate::services::Accounts;

/// Makes the administrator, before anybody can connect. Returns it if the password, too, was made here.
///
/// A password is made, and kept in the data folder, only for an account that is made with it: what the file says is
/// never wrong.
pub(super) async fn first_admin(
    accounts: &Accounts,
    db: &Db,
    config: &mut Config,
    data_dir: Option<&DataDir>,
) -> Result<Option<config::Admin>, StartError> {
    let failed = |error: crate::error::Error| StartError(format!("administrator: {error}"));
    let configured = !config.admin.password.expose_secret().is_empty();
    let name =
        Username::parse(&config.admin.username).map_err(|error| StartError(format!("admin.username: {error}")))?;
    let existing = db.read(|conn| Box::pin(async move { conn.find_user_by_name(&name).await })).await;
    let existing =
        existing.map_err(|error: DbError| StartError(format!("administrator: {error}; {}", error.advice())))?;
    // One whose password is still to be hashed is not there yet.
    let existing = existing.filter(Account::has_password);
    if let (false, None, Some(data_dir)) = (configured, &existing, data_dir) {
        config.admin.password = data_dir.secret(ADMIN_PASSWORD, config::check_password, random_password)?;
    }
    let made = accounts.ensure_admin(&config.admin).await.map_err(failed)?;
    if let (true, Some(account)) = (configured, &existing) {
        warn_if_other(&config.admin, account.password_hash.clone());
    }
    if let Some(data_dir) = data_dir {
        match existing {
            // What a start that was cut short has made.
            None if configured => forget_secret(data_dir.path(), ADMIN_PASSWORD)?,
            None => {}
            Some(account) => forget_if_false(data_dir.path(), account.password_hash),
        }
    }
    Ok((made && !configured).then(|| config.admin.clone()))
}

/// Says that the administrator's password is not the configured one, which is read only when the account is made. It takes
/// as long as a log-in, so nobody waits for it.
fn warn_if_other(configured: &config::Admin, hash: String) {
    let configured = configured.clone();
    tokio::task::spawn_blocking(move || {
        if bcrypt::verify(configured.password.expose_secret(), &hash).is_ok_and(|correct| !correct) {
            tracing::warn!(
                admin.name = configured.username,
                "admin.password is not this administrator's password: it is read only when the account is made. To make \
                 it so: `seckill admin set-password`"
            );
        }
    });
}

/// Removes a kept password of the administrator that is not, or not any more, the account's. It takes as long as a log-in,
/// so nobody waits for it.
fn forget_if_false(folder: &Path, hash: String) {
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || {
        let kept = data_dir::kept_secret(&folder, ADMIN_PASSWORD, config::check_password);
        let is_false = match &kept {
            Ok(None) => return,
            Ok(Some(kept)) => bcrypt::verify(kept.expose_secret(), &hash).is_ok_and(|correct| !correct),
            Err(_) => false,
        };
        let outcome = match kept {
            Err(problem) => Err(problem),
            Ok(_) if is_false => forget_secret(&folder, ADMIN_PASSWORD)
                .map(|()| tracing::info!("Removed admin_password: it was not the administrator's password")),
            Ok(_) => Ok(()),
        };
        if let Err(problem) = outcome {
            tracing::warn!(problem, "Cannot tell whether admin_password is right");
        }
    });
}
