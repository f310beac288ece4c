//! What a queue of either backend says: of itself, and of what was published.

/// What a queue holds, as far as this instance knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait for a consumer, or that one of this instance has and has not acknowledged.
    pub messages: i64,
    /// Dead letters.
    pub dead: i64,
    /// Messages that should be dead letters, and that the dead-letter queue does not take.
    pub refused_dead: i64,
}

/// Why a message was not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The queue is known to be away or full; nothing was sent.
    #[error("the queue is not available")]
    Unavailable,
    /// The queue turned the message away.
    #[error("the queue refused the message")]
    Refused,
    /// No confirm came in time; the message may be queued (I5).
    #[error("the queue did not confirm in time")]
    Unclear,
}

impl PublishError {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Unclear => "unclear",
        }
    }

    /// What an operator does about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Unavailable => "another line says what is wrong with the queue",
            Self::Refused => {
                "see whether orders are written; if so, whether the queue is full or has lost most of its nodes: \
                 `rabbitmqctl list_queues name messages state`"
            }
            Self::Unclear => "another line says what is wrong with the queue, if this goes on",
        }
    }
}
