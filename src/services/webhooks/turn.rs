//! A sender's turn at the database: what came of tries is noted, and more is got, in one transaction.

use std::time::Duration;

use uuid::Uuid;

use super::exchange::Answer;
use super::retries::Schedule;
use crate::db::{ClaimedDelivery, DbConn, Endpoint, TryResult};
use crate::error::Result;
use crate::model::{DeliveryId, DeliveryStatus, EndpointId};

/// An endpoint that took nothing for so long is switched off.
const FAILING_MOST: Duration = Duration::from_secs(5 * 86_400);
/// Status of an endpoint that wants nothing any more.
const GONE: u16 = 410;
/// As many as the table holds.
const MAX_ERROR_CHARS: usize = 255;

/// A try that ended.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) id: DeliveryId,
    /// Tries before this one.
    pub(super) tries: i64,
    pub(super) lease: Uuid,
    pub(super) ended: Ended,
}

/// How.
#[derive(Debug, Clone)]
pub(super) enum Ended {
    /// It was answered, or not.
    Answered(Answer),
    /// There is nothing that could be sent.
    Unsendable(&'static str),
}

/// What a sender wants of the database.
#[derive(Debug, Clone)]
pub(super) struct Wishes {
    pub(super) endpoint: EndpointId,
    pub(super) done: Vec<Done>,
    /// Not tried, and given back.
    pub(super) unsent: Vec<(DeliveryId, Uuid)>,
    /// More deliveries, and how long they are held.
    pub(super) more: i64,
    pub(super) lease: Uuid,
    pub(super) held_for: Duration,
}

/// What it got.
#[derive(Debug)]
pub(super) struct Turn {
    /// The endpoint; `None`: it is gone, or switched off.
    pub(super) endpoint: Option<Endpoint>,
    pub(super) claimed: Vec<ClaimedDelivery>,
    /// Why it was switched off just now.
    pub(super) switched_off: Option<String>,
    /// Deliveries that are given up.
    pub(super) given_up: usize,
}

/// The transaction.
pub(super) async fn take(conn: &mut DbConn, wishes: Wishes, schedule: &Schedule) -> Result<Turn> {
    let Wishes { endpoint: id, done, unsent, more, lease, held_for } = wishes;
    let now = conn.now().await?;
    let mut results: Vec<(Uuid, Vec<TryResult>)> = Vec::new();
    let (mut works, mut fails, mut gone, mut given_up) = (false, false, false, 0);
    for Done { id, tries, lease, ended } in done {
        let is_sendable = !matches!(ended, Ended::Unsendable(_));
        let next = |retry_after| schedule.after(usize::try_from(tries + 1).unwrap_or(usize::MAX), retry_after);
        let (answer, error, pause) = match ended {
            Ended::Answered(Answer::Taken(status)) => (Some(status), None, None),
            Ended::Answered(Answer::Refused(status, retry_after)) => {
                gone |= status == GONE;
                (Some(status), Some(refused(status)), next(retry_after))
            }
            Ended::Answered(Answer::Failed(problem)) => (None, Some(problem), next(None)),
            Ended::Unsendable(problem) => (None, Some(problem.to_owned()), None),
        };
        let status = match (&error, pause) {
            (None, _) => DeliveryStatus::Delivered,
            (Some(_), Some(_)) => DeliveryStatus::Pending,
            (Some(_), None) => DeliveryStatus::Failed,
        };
        works |= status == DeliveryStatus::Delivered;
        // What cannot be sent says nothing of who would have got it.
        fails |= error.is_some() && is_sendable;
        given_up += usize::from(status == DeliveryStatus::Failed);
        let error = error.map(|error| error.chars().take(MAX_ERROR_CHARS).collect());
        let result = TryResult { id, status, due_at: pause.map(|pause| now.after(pause)), answer, error };
        match results.iter_mut().find(|(other, _)| *other == lease) {
            Some((_, of_lease)) => of_lease.push(result),
            None => results.push((lease, vec![result])),
        }
    }
    for (lease, results) in results {
        conn.note_tries(&results, lease, now).await?;
    }
    for (delivery, lease) in unsent {
        conn.give_back(&[delivery], lease, now).await?;
    }
    let mut reason = gone.then(|| format!("answered {GONE}"));
    if works {
        conn.endpoint_works(id).await?;
    } else if fails
        && let Some(since) = conn.endpoint_fails(id, now).await?
        && now.since(since) >= FAILING_MOST
    {
        reason = reason.or_else(|| Some("took nothing for five days".to_owned()));
    }
    let mut switched_off = None;
    if let Some(reason) = reason
        && conn.switch_endpoint_off(id, &reason, now).await?
    {
        switched_off = Some(reason);
    }
    let endpoint = conn.find_endpoint(id).await?.filter(|endpoint| endpoint.active);
    let claimed = match &endpoint {
        Some(_) if more > 0 => conn.claim_deliveries(id, lease, (now, now.after(held_for)), more).await?,
        _ => Vec::new(),
    };
    crash_point!("before_webhook_turn_commit");
    Ok(Turn { endpoint, claimed, switched_off, given_up })
}

fn refused(status: u16) -> String {
    match status {
        300..=399 => format!("answered {status}; redirects are not followed"),
        status => format!("answered {status}"),
    }
}
