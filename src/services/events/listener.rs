//! One who listens.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::web::Bytes;
use futures_util::stream::{self, SelectAll, Stream, StreamExt};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::fan_out::{Event, Newest};
use crate::error::{Error, Result};
use crate::model::Timestamp;

/// What one who listens hears: events as `text/event-stream` has them. Ends with the process, or when it may not listen any longer.
pub struct Listener {
    pieces: SelectAll<Pin<Box<dyn Stream<Item = Bytes> + Send>>>,
    _place: OwnedSemaphorePermit,
}

/// Places for those who listen.
#[derive(Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    all: usize,
}

impl Places {
    pub(super) fn new(all: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(all)), all }
    }

    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit> {
        let place = self.free.clone().try_acquire_owned();
        place.map_err(|_| Error::Unavailable("too many listen to events".to_owned()))
    }

    pub(super) fn taken(&self) -> usize {
        self.all - self.free.available_permits()
    }
}

impl Listener {
    /// Tells first when to come back if the connection is lost: each another time, so that not all come back at once.
    pub(super) fn new(place: OwnedSemaphorePermit) -> Self {
        let retry = 1_000 + getrandom::u32().unwrap_or_default() % 4_000;
        let first = stream::iter([Bytes::from(format!("retry: {retry}\n\n"))]);
        Self { pieces: SelectAll::from_iter([first.boxed()]), _place: place }
    }

    /// Hears of this, too.
    pub(super) fn hear<E: Event>(&mut self, feed: watch::Receiver<Newest<E>>, now: Timestamp) -> Result<()> {
        // What all have heard may have been sent a while ago, and says what time it was then.
        let (first, change) = {
            let newest = feed.borrow();
            (newest.event.encoded(now)?, newest.change)
        };
        let later = stream::unfold((feed, change), |(mut feed, heard)| async move {
            feed.changed().await.ok()?;
            let (piece, change) = {
                let newest = feed.borrow_and_update();
                let piece = if newest.change == heard { &newest.alive } else { &newest.encoded }.clone();
                (piece, newest.change)
            };
            Some((piece, (feed, change)))
        });
        self.pieces.push(stream::iter([first]).chain(later).boxed());
        Ok(())
    }

    /// Must come again after `lifetime`.
    pub(super) fn for_at_most(self, lifetime: Duration) -> impl Stream<Item = Bytes> {
        self.take_until(tokio::time::sleep(lifetime))
    }
}

impl Stream for Listener {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.pieces.poll_next_unpin(cx)
    }
}

/// An event named `name`.
pub(super) fn encoded(name: &str, data: &impl Serialize) -> Result<Bytes> {
    let mut piece = format!("event: {name}\ndata: ").into_bytes();
    // JSON has no line break in it.
    serde_json::to_writer(&mut piece, data).map_err(|error| Error::Internal(format!("encoding an event: {error}")))?;
    piece.extend_from_slice(b"\n\n");
    Ok(piece.into())
}
