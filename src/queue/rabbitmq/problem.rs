//! What is wrong with RabbitMQ: sorted by what an operator does about it, in words that name the setting.
//!
//! Sorted by reply code and by the method that was refused, never by the broker's English.

use std::fmt::{self, Display};

use amqprs::error::Error as AmqpError;
use amqprs::{Close, CloseChannel};

/// Classes and methods of AMQP that a broker may refuse, as `Close` names them.
const QUEUE_DECLARE: (u16, u16) = (50, 10);
const BASIC_CONSUME: (u16, u16) = (60, 20);
const BASIC_GET: (u16, u16) = (60, 70);
const BASIC_PUBLISH: (u16, u16) = (60, 40);

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::queue) enum Trouble {
    /// No connection, or it broke.
    Unreachable,
    /// It does not let our user in, or not do what we must.
    AccessRefused,
    /// It has a queue of this name that is not ours, or no such vhost.
    Misconfigured,
    /// It answers and confirms nothing.
    Blocked,
}

impl Trouble {
    /// One word, from which a stranger learns nothing.
    pub(in crate::queue) fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::AccessRefused => "access_refused",
            Self::Misconfigured => "misconfigured",
            Self::Blocked => "blocked",
        }
    }

    /// Whether trying again soon is of no use: somebody must change something first.
    pub(super) fn needs_an_operator(self) -> bool {
        matches!(self, Self::AccessRefused | Self::Misconfigured)
    }
}

/// A trouble, and what the log says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BrokerProblem {
    pub(super) trouble: Trouble,
    pub(super) text: String,
    /// A link ended without a word of the broker's. The next try to make one says more.
    pub(super) is_broken_link: bool,
}

impl Display for BrokerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl BrokerProblem {
    pub(super) fn unreachable(text: impl Display) -> Self {
        Self::new(Trouble::Unreachable, text)
    }

    /// A trouble, and what the log says of it.
    pub(super) fn new(trouble: Trouble, text: impl Display) -> Self {
        Self { trouble, text: text.to_string(), is_broken_link: false }
    }

    /// A link ended, and nobody has said why.
    pub(super) fn broken_link(text: impl Display) -> Self {
        Self { is_broken_link: true, ..Self::unreachable(text) }
    }

    /// What is wrong with one node, or with several of which none can be used. That one can come back by itself counts more than
    /// what somebody must change at another.
    pub(super) fn of_all(mut problems: Vec<Self>) -> Self {
        if problems.len() == 1 {
            return problems.remove(0);
        }
        let trouble = problems.iter().map(|problem| problem.trouble).min().unwrap_or(Trouble::Unreachable);
        // They are tried in any order, and the same trouble is to be the same text.
        let mut all: Vec<String> = problems.into_iter().map(|problem| problem.text).collect();
        all.sort();
        Self::new(trouble, all.join("; "))
    }

    /// It takes messages and says nothing of them.
    pub(super) fn blocked() -> Self {
        let text = "RabbitMQ confirms nothing. Has it a memory or disk alarm? `rabbitmqctl status` shows alarms; \
                    it goes on by itself when they are over";
        Self::new(Trouble::Blocked, text)
    }

    /// Why the broker closed a connection or a channel: its reply, and which method it refused.
    pub(super) fn of_reply(code: u16, text: &str, refused: (u16, u16)) -> Self {
        let (trouble, hint) = match (code, refused) {
            (403, QUEUE_DECLARE) => (
                Trouble::AccessRefused,
                "the user of rabbitmq.url needs the permission `configure` on these queues, if rabbitmq.queue is right",
            ),
            (403, BASIC_CONSUME | BASIC_GET) => {
                (Trouble::AccessRefused, "the user of rabbitmq.url needs the permission `read` on this queue")
            }
            (403, BASIC_PUBLISH) => (
                Trouble::AccessRefused,
                "the user of rabbitmq.url needs the permission `write` on the default exchange, `amq.default`",
            ),
            (403, _) => (Trouble::AccessRefused, "check the user, the password and the vhost of rabbitmq.url"),
            (530, _) => (
                Trouble::AccessRefused,
                "check the vhost of rabbitmq.url, its limits, and that its user may use it (`rabbitmqctl set_permissions`)",
            ),
            (406 | 405, QUEUE_DECLARE) => (
                Trouble::Misconfigured,
                "there is a queue of that name with other settings: choose another rabbitmq.queue, or delete that one \
                 once it is empty",
            ),
            (406, _) => (
                Trouble::Unreachable,
                "if this says that an acknowledgement timed out: writing took longer than the broker's \
                 consumer_timeout; the messages come again",
            ),
            (404, _) => (Trouble::Unreachable, "the queue was deleted; it is made anew"),
            _ => return Self::unreachable(format!("the broker says {code} {text}")),
        };
        Self::new(trouble, format!("the broker says {code} {text}; {hint}"))
    }
}

impl From<&Close> for BrokerProblem {
    fn from(close: &Close) -> Self {
        Self::of_reply(close.reply_code(), close.reply_text(), (close.class_id(), close.method_id()))
    }
}

impl From<&CloseChannel> for BrokerProblem {
    fn from(close: &CloseChannel) -> Self {
        Self::of_reply(close.reply_code(), close.reply_text(), (close.class_id(), close.method_id()))
    }
}

impl From<AmqpError> for BrokerProblem {
    fn from(error: AmqpError) -> Self {
        Self::unreachable(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_nodes_the_one_that_can_come_back_counts() {
        let wrong = BrokerProblem::new(Trouble::Misconfigured, "a: a certificate");
        let away = BrokerProblem::unreachable("b: away");
        assert_eq!(BrokerProblem::of_all(vec![wrong.clone()]), wrong);
        let both = BrokerProblem::of_all(vec![away.clone(), wrong.clone()]);
        assert_eq!(both, BrokerProblem::of_all(vec![wrong, away]), "in whichever order they were tried");
        assert_eq!((both.trouble, both.text.as_str()), (Trouble::Unreachable, "a: a certificate; b: away"));
    }

    #[test]
    fn a_refusal_names_the_setting() {
        for (code, refused, trouble, named) in [
            (403, (0, 0), Trouble::AccessRefused, "password"),
            (403, QUEUE_DECLARE, Trouble::AccessRefused, "configure"),
            (403, BASIC_CONSUME, Trouble::AccessRefused, "read"),
            (403, BASIC_PUBLISH, Trouble::AccessRefused, "write"),
            (530, (10, 40), Trouble::AccessRefused, "vhost"),
            (406, QUEUE_DECLARE, Trouble::Misconfigured, "rabbitmq.queue"),
            (406, (0, 0), Trouble::Unreachable, "consumer_timeout"),
            (320, (0, 0), Trouble::Unreachable, "320"),
        ] {
            let problem = BrokerProblem::of_reply(code, "as the broker puts it", refused);
            assert_eq!(problem.trouble, trouble, "{code} {refused:?}");
            assert!(problem.text.contains(named) && problem.text.contains("as the broker puts it"), "{problem}");
        }
    }
}
