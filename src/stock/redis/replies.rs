//! What Redis answers, read into what the gate says.

use std::time::Duration;

use deadpool_redis::redis::{FromRedisValue, Value};

use crate::model::{Purchase, Revision, SaleTerms, Timestamp};
use crate::stock::{Admission, Answer, GateError, Stale};

pub(super) fn nonsense(what: impl std::fmt::Display) -> GateError {
    GateError::Protocol(what.to_string())
}

pub(super) fn parse<T: FromRedisValue>(value: Value) -> Result<T, GateError> {
    T::from_redis_value(value).map_err(nonsense)
}

pub(super) fn done(reply: &str) -> Result<(), GateError> {
    match reply {
        "ok" => Ok(()),
        "lost" => Err(GateError::Lost),
        "closed" => Err(GateError::Closed),
        "superseded" => Err(GateError::Superseded),
        other => Err(nonsense(other)),
    }
}

/// What a step that takes units answered, and, if the sale is open, the gate's version at that moment.
pub(super) fn parse_admission(reply: Vec<Value>, purchases: usize) -> Result<(Admission, Option<Version>), GateError> {
    let mut reply = reply.into_iter();
    let mut next = || reply.next().ok_or_else(|| nonsense("a short reply"));
    let word: String = parse(next()?)?;
    match word.as_str() {
        "open" | "taken" => {
            let version = Version { epoch: parse(next()?)?, seq: parse(next()?)? };
            let revision = parse_revision(parse(next()?)?)?;
            let answers = if word == "taken" {
                vec![Answer::Taken; purchases]
            } else {
                (0..purchases).map(|_| parse_answer(next()?)).collect::<Result<_, _>>()?
            };
            Ok((Admission::Open { epoch: version.epoch, revision, answers }, Some(version)))
        }
        "not_started" => {
            let starts = Timestamp::from_unix_ms(parse(next()?)?).ok_or_else(|| nonsense("the start"))?;
            Ok((Admission::NotStarted(starts), None))
        }
        "ended" => Ok((Admission::Ended, None)),
        "paused" => Ok((Admission::Paused, None)),
        refused => done(refused).and_then(|()| Err(nonsense(refused))),
    }
}

fn parse_answer(value: Value) -> Result<Answer, GateError> {
    match value {
        Value::Int(0) => Ok(Answer::Taken),
        Value::Int(-1) => Ok(Answer::SoldOut),
        Value::Int(ms @ 1..) => Ok(Answer::RateLimited(Duration::from_millis(ms as u64))),
        held => {
            let held: String = parse(held)?;
            let (order, in_flight) = match (held.split_once('+'), held.strip_suffix('-')) {
                (Some((order, revision)), _) => (order, Some(parse_revision(revision.parse().map_err(nonsense)?)?)),
                (_, Some(order)) => (order, None),
                _ => return Err(nonsense(held)),
            };
            Ok(Answer::Already { order_id: order.parse().map_err(nonsense)?, in_flight })
        }
    }
}

pub(super) fn parse_revision(number: i64) -> Result<Revision, GateError> {
    Revision::try_from(number).map_err(|problem| nonsense(format!("revision {number} {problem}")))
}

/// What a step that gives units to purchases of long ago answered: the gate's epoch, and an answer for each.
pub(super) fn parse_readmitted(reply: Vec<Value>) -> Result<(i64, Vec<Answer>), GateError> {
    let mut reply = reply.into_iter();
    let mut next = || reply.next().ok_or_else(|| nonsense("a short reply"));
    let word: String = parse(next()?)?;
    if word != "open" {
        return done(&word).and_then(|()| Err(nonsense(word)));
    }
    let epoch = parse(next()?)?;
    let answers = reply.map(|value| match value {
        Value::Int(0) => Ok(Answer::Taken),
        Value::Int(-1) => Ok(Answer::SoldOut),
        held => {
            let order_id = parse::<String>(held)?.parse().map_err(nonsense)?;
            Ok(Answer::Already { order_id, in_flight: None })
        }
    });
    Ok((epoch, answers.collect::<Result<_, _>>()?))
}

pub(super) fn parse_stale(reply: &[String]) -> Result<Stale, GateError> {
    match reply {
        [word, epoch, members @ ..] if word == "open" => {
            let parse = |[member, revision]: &[String; 2]| {
                let (order, user) = member.split_once(':')?;
                let revision = Revision::try_from(revision.parse::<i64>().ok()?).ok()?;
                Some((Purchase { order_id: order.parse().ok()?, user_id: user.parse().ok()? }, revision))
            };
            let (members, []) = members.as_chunks() else { return Err(nonsense("a member without a revision")) };
            let parsed = members.iter().map(|member| parse(member).ok_or_else(|| nonsense(&member[0])));
            let (purchases, revisions) = parsed.collect::<Result<_, _>>()?;
            Ok(Stale { epoch: epoch.parse().map_err(nonsense)?, purchases, revisions })
        }
        [word] => done(word).and_then(|()| Err(nonsense(word))),
        _ => Err(nonsense("a reply of another form")),
    }
}

/// Another one after each change of a gate, except for units that are taken: its epoch, and `seq`, which begins anew with
/// each epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) epoch: i64,
    seq: i64,
}

/// An open gate.
pub(super) struct OpenGate {
    pub(super) terms: SaleTerms,
    pub(super) version: Version,
    pub(super) taken: i64,
    pub(super) in_flight: i64,
}

/// `fields`: those of [`super::GATE_FIELDS`]; `marks`, `in_flight`: fields of `buyers`, members of `flight`. `None`: closed, lost, or of another server.
pub(super) fn parse_gate(
    fields: &[Option<String>],
    sentinel: Option<&str>,
    (marks, in_flight): (i64, i64),
    home: &str,
) -> Result<Option<OpenGate>, GateError> {
    let all: Option<Vec<&str>> = fields.iter().map(Option::as_deref).collect();
    let Some(&[epoch, gate_home, open, ver, stock, starts, ends, paused, seq]) = all.as_deref() else {
        return Ok(None);
    };
    if gate_home != home || open != "1" || sentinel != Some(epoch) {
        return Ok(None);
    }
    let number = |text: &str| text.parse::<i64>().map_err(|_| nonsense(format!("`{text}` is no number")));
    let time = |text: &str| Timestamp::from_unix_ms(number(text)?).ok_or_else(|| nonsense(format!("time {text}")));
    let terms = SaleTerms {
        ver: number(ver)?,
        stock: number(stock)?,
        starts_at: time(starts)?,
        ends_at: if ends.is_empty() { None } else { Some(time(ends)?) },
        paused: paused == "1",
    };
    let version = Version { epoch: number(epoch)?, seq: number(seq)? };
    Ok(Some(OpenGate { terms, version, taken: marks - 1, in_flight }))
}
