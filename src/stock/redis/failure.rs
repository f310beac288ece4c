//! What Redis means when it does not do as it is told.
//!
//! A server that refuses is not a defect here: the purchase is answered 503 and comes again. It is sorted by the first
//! word of its error, which is part of the protocol; what follows is English for people.

use deadpool_redis::PoolError;
use deadpool_redis::redis::{ErrorKind, RedisError};

use crate::stock::types::GateError;

/// A key holds another type than ours: one product's trouble, not the server's.
pub(super) const WRONG_TYPE: &str = "WRONGTYPE";

/// Behind these words the server may be, or soon become, another than it was: its identity must be read again. And a new
/// connection may lead to the master, or log in with what was changed meanwhile.
const CONNECT_ANEW: [&str; 7] = ["READONLY", "LOADING", "MISCONF", "MASTERDOWN", "NOAUTH", "WRONGPASS", "NOPERM"];

/// So answers a node of a cluster that is not, or not alone, responsible for a key.
const LOOK_AGAIN: [&str; 5] = ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "READONLY"];

/// The first word of an error, what it means, and what to look at.
const MEANINGS: [(&str, &str); 18] = [
    ("OOM", "its memory is full: raise maxmemory, or remove what else is in it"),
    ("NOREPLICAS", "too few replicas follow it: look at the replicas, min-replicas-to-write and min-replicas-max-lag"),
    ("READONLY", "it is a replica: redis.addr must lead to the master, also after a failover (or see redis.mode)"),
    (
        "MISCONF",
        "it cannot save to disk and so takes no writes: look at its disk, its log and stop-writes-on-bgsave-error",
    ),
    ("LOADING", "it has just started and reads its data from disk: wait, or look at its log"),
    ("MASTERDOWN", "it is a replica that lost its master: redis.addr must lead to the master (or see redis.mode)"),
    ("BUSY", "a script of somebody else runs for too long: look for it, or stop it with SCRIPT KILL"),
    ("UNKILLABLE", "a script of somebody else has run for too long and has written already: only a restart stops it"),
    ("NOAUTH", "it asks for a password: look at redis.username and redis.password"),
    ("WRONGPASS", "it does not know this user or password: look at redis.username and redis.password"),
    (
        "NOPERM",
        "its user may not do what a purchase needs: look at the ACL of redis.username (commands, and keys that begin with redis.key_prefix)",
    ),
    ("CLUSTERDOWN", "a part of the cluster has no master: look at its nodes"),
    ("MOVED", "another node of the cluster has this by now, and is asked from now on"),
    ("ASK", "a slot of the cluster moves to another node"),
    ("TRYAGAIN", "a slot of the cluster moves to another node"),
    ("CROSSSLOT", "it is a node of a cluster: redis.mode must be cluster"),
    ("NOPROTO", "it does not speak the protocol of Redis 6 and later"),
    // Also what a script is told that may not run one of its commands.
    ("ERR", "a command failed: look at the ACL of redis.username, and whether this is Redis 7 or later"),
];

/// An error, sorted.
pub(super) struct Failure {
    pub(super) error: GateError,
    /// The connection must not be used again.
    pub(super) connect_anew: bool,
    /// Another server of the cluster may be the right one by now.
    pub(super) look_again: bool,
}

/// Sorts an error of a command.
pub(super) fn sort(error: &RedisError) -> Failure {
    match error.kind() {
        // What the library makes of any refusal to log in.
        ErrorKind::AuthenticationFailed => {
            Failure { error: refused("WRONGPASS", ""), connect_anew: true, look_again: false }
        }
        ErrorKind::UnexpectedReturnType => {
            Failure { error: GateError::Protocol(error.to_string()), connect_anew: false, look_again: false }
        }
        _ => match error.clone().into_server_errors() {
            Some(errors) => match errors.first() {
                Some((_, first)) => of_server(first.code(), first.details().unwrap_or_default()),
                None => {
                    Failure { error: GateError::Protocol(error.to_string()), connect_anew: true, look_again: false }
                }
            },
            // The link itself: broken, too slow, or not understood any more.
            None => Failure { error: GateError::Unclear(error.to_string()), connect_anew: true, look_again: true },
        },
    }
}

/// Sorts an error met before anything was asked.
pub(super) fn sort_connect(error: &PoolError) -> GateError {
    match error {
        PoolError::Backend(error) => match sort(error).error {
            GateError::Unclear(problem) => GateError::Unreachable(problem),
            refused => refused,
        },
        other => GateError::Unreachable(other.to_string()),
    }
}

/// Sorts an error of the choice of a database.
pub(super) fn refused_database(error: &RedisError, database: u16) -> GateError {
    match error.code() {
        // There is no such number, or this is a cluster.
        Some("ERR") => {
            let problem = error.detail().unwrap_or_default();
            GateError::Misconfigured(format!("redis.db: Redis has no database {database} [{problem}]"))
        }
        _ => sort_connect(&PoolError::Backend(error.clone())),
    }
}

fn of_server(word: &str, text: &str) -> Failure {
    let error = match word {
        WRONG_TYPE => GateError::Protocol(format!("{word} {text}")),
        _ => refused(word, text),
    };
    Failure { error, connect_anew: CONNECT_ANEW.contains(&word), look_again: LOOK_AGAIN.contains(&word) }
}

/// A refusal by its word. `text` is what the server says itself.
pub(super) fn refused(word: &str, text: &str) -> GateError {
    let known = MEANINGS.iter().find(|(known, _)| *known == word);
    GateError::Refused(match (known, text.is_empty()) {
        (Some((_, meaning)), true) => format!("{word}: {meaning}"),
        (Some((_, meaning)), false) => format!("{word}: {meaning} [{text}]"),
        (None, _) => format!("{word}: {text}"),
    })
}

#[cfg(test)]
mod tests {
    use deadpool_redis::redis::{Value, parse_redis_value};

    use super::*;

    fn failure(line: &str) -> Failure {
        match parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap() {
            Value::ServerError(error) => sort(&RedisError::from(error)),
            other => panic!("{other:?}"),
        }
    }

    /// Guards against: a refusal that is taken for a defect and answered 500.
    #[test]
    fn whatever_a_server_answers_is_a_refusal_that_says_where_to_look() {
        for (line, where_to_look, connect_anew) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", "maxmemory", false),
            ("NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write", false),
            ("READONLY You can't write against a read only replica.", "redis.addr", true),
            ("MISCONF Redis is configured to save RDB snapshots", "its disk", true),
            ("LOADING Redis is loading the dataset in memory", "wait", true),
            ("MASTERDOWN Link with MASTER is down", "redis.addr", true),
            ("BUSY Redis is busy running a script.", "SCRIPT KILL", false),
            ("UNKILLABLE Sorry the script already executed write commands", "restart", false),
            ("NOAUTH Authentication required.", "redis.password", true),
            ("WRONGPASS invalid username-password pair", "redis.username", true),
            ("NOPERM this user has no permissions to run the 'evalsha' command", "ACL of redis.username", true),
            ("CLUSTERDOWN Hash slot not served", "its nodes", false),
            ("MOVED 3999 127.0.0.1:6381", "another node", false),
            ("TRYAGAIN Multiple keys request during rehashing of slot", "another node", false),
            ("EXECABORT Transaction discarded because of previous errors.", "previous errors", false),
            ("ERR The user executing the script can't run this command", "ACL", false),
            ("VERYNEW something that nobody has heard of", "nobody has heard of", false),
        ] {
            let Failure { error, connect_anew: anew, .. } = failure(line);
            let GateError::Refused(problem) = &error else { panic!("{line}: {error:?}") };
            assert!(problem.starts_with(line.split(' ').next().unwrap()), "{line}: {problem}");
            assert!(problem.contains(where_to_look), "{line}: {problem}");
            assert_eq!(anew, connect_anew, "{line}");
        }
        let no_such: RedisError = match parse_redis_value(b"-ERR DB index is out of range\r\n").unwrap() {
            Value::ServerError(error) => error.into(),
            other => panic!("{other:?}"),
        };
        let GateError::Misconfigured(problem) = refused_database(&no_such, 99) else { panic!("{no_such}") };
        assert!(problem.starts_with("redis.db: Redis has no database 99"), "{problem}");
        assert!(matches!(failure("WRONGTYPE Operation against a key").error, GateError::Protocol(_)));
    }
}
