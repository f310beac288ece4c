//! Dead letters of a journal that a server writes: it is asked between two commits.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{DeliveredGroup, Entry, Writer};
use crate::model::PurchaseGroup;
use crate::queue::dead_letter::{DeadLetter, Held, Place, PutBack};
use crate::queue::message::{self, MessagePart};

/// For the journal to answer, which waits for the disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where to ask.
pub struct JournalDesk {
    entries: mpsc::Sender<Entry>,
}

/// What is asked.
pub(super) enum Errand {
    /// The oldest letters, so many of them, and how many there are.
    List(usize, oneshot::Sender<Answer<(Vec<DeadLetter>, usize)>>),
    /// One letter by its number.
    Find(i64, oneshot::Sender<Answer<Option<DeadLetter>>>),
    /// What is to become of one.
    PutBack(i64, PutBack, oneshot::Sender<Answer<()>>),
}

type Answer<T> = Result<T, String>;

impl JournalDesk {
    pub(super) fn new(entries: mpsc::Sender<Entry>) -> Self {
        Self { entries }
    }

    pub(in crate::queue) async fn list(&self, most: usize) -> Answer<(Vec<DeadLetter>, usize)> {
        self.ask(|answer| Errand::List(most, answer)).await
    }

    pub(in crate::queue) async fn hold(&self, id: &str) -> Answer<Vec<Held>> {
        let Ok(seq) = id.parse() else { return Ok(Vec::new()) };
        let found = self.ask(|answer| Errand::Find(seq, answer)).await?;
        // A number has one spelling.
        let found = found.filter(|letter| letter.id == id);
        Ok(found.map(|letter| Held { letter, place: Place::Journal(seq) }).into_iter().collect())
    }

    pub(in crate::queue) async fn put_back(&self, held: &Held, back: PutBack) -> Answer<()> {
        let Place::Journal(seq) = held.place else { return Err("it is not in a journal".to_owned()) };
        self.ask(|answer| Errand::PutBack(seq, back, answer)).await
    }

    async fn ask<T>(&self, errand: impl FnOnce(oneshot::Sender<Answer<T>>) -> Errand) -> Answer<T> {
        let (answer, answered) = oneshot::channel();
        let asked = self.entries.try_send(Entry::Errand(errand(answer)));
        asked.map_err(|_| "the journal has too much to do".to_owned())?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            _ => Err("the journal did not answer".to_owned()),
        }
    }
}

impl Writer {
    /// Whoever asked may have gone; what was asked is done all the same.
    pub(super) fn run_errand<D: From<DeliveredGroup>>(&mut self, errand: Errand, deliveries: &mpsc::Sender<D>) {
        match errand {
            Errand::List(most, answer) => {
                let most = i64::try_from(most).unwrap_or(i64::MAX);
                let found = self.journal.dead_letters(most).and_then(|letters| {
                    let count = self.journal.count_dead()?;
                    Ok((letters, usize::try_from(count).unwrap_or_default()))
                });
                let _ = answer.send(found.map_err(|error| error.to_string()));
            }
            Errand::Find(seq, answer) => {
                let _ = answer.send(self.journal.dead_letter(seq).map_err(|error| error.to_string()));
            }
            Errand::PutBack(seq, back, answer) => {
                let _ = answer.send(self.put_back(seq, back, deliveries));
            }
        }
    }

    fn put_back<D: From<DeliveredGroup>>(
        &mut self,
        seq: i64,
        back: PutBack,
        deliveries: &mpsc::Sender<D>,
    ) -> Answer<()> {
        let PutBack { message, kept } = back;
        let group = match &message {
            None => None,
            Some(body) => Some(self.readable(body)?),
        };
        // A number of its own: what stays set aside keeps the old one.
        let new = message.map(|body| (self.last_seq + 1, body));
        let kept = kept.map(|kept| (kept.reason(), kept.body));
        let is_kept = kept.is_some();
        if !self.journal.put_back(seq, new, kept).map_err(|error| error.to_string())? {
            return Err("it is not set aside any more".to_owned());
        }
        self.state.dead.fetch_sub(i64::from(!is_kept), Ordering::Relaxed);
        if let Some(group) = group {
            self.last_seq += 1;
            self.state.expect(group.items.len());
            self.deliver(self.last_seq, group, deliveries);
        }
        Ok(())
    }

    /// What a consumer can be given.
    fn readable(&self, body: &[u8]) -> Answer<PurchaseGroup> {
        if !self.state.has_room() {
            return Err("too many purchases wait to be written; try again in a moment".to_owned());
        }
        match message::decode(body)? {
            MessagePart::Purchases(group) => Ok(group),
            MessagePart::Barrier(_) => Err("not purchases".to_owned()),
        }
    }
}
