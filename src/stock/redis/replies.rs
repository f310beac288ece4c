//! What Redis answers, read into what the gate says.

use std::time::Duration;

use deadpool_redis::redis::{FromRedisValue, Value};

use super::mark::{self, InFlightEntry, Mark};
use crate::model::{Denial, Revision, SaleSettings, Terms, Timestamp};
use crate::stock::types::{Admission, Answer, FoundGate, GateError, Holding, PaymentAdmission, Stale};

pub(super) fn nonsense(what: impl std::fmt::Display) -> GateError {
    GateError::Protocol(what.to_string())
}

pub(super) fn parse<T: FromRedisValue>(value: Value) -> Result<T, GateError> {
    T::from_redis_value(value).map_err(nonsense)
}

/// Reads the one word with which most scripts answer.
pub(super) fn status(reply: &str) -> Result<(), GateError> {
    match reply {
        "ok" => Ok(()),
        "lost" => Err(GateError::Lost),
        "closed" => Err(GateError::Closed),
        "another_gate" => Err(GateError::AnotherGate),
        other => Err(nonsense(other)),
    }
}

/// What a step that takes units answered, and, if the sale is open, the gate's version at that moment.
pub(super) fn parse_admission(
    reply: Vec<Value>,
    purchases: usize,
) -> Result<(Admission, Option<GateVersion>), GateError> {
    let mut reply = reply.into_iter();
    let mut next = || reply.next().ok_or_else(|| nonsense("a short reply"));
    let word: String = parse(next()?)?;
    match word.as_str() {
        "open" | "taken" => {
            let version = GateVersion { epoch: parse(next()?)?, seq: parse(next()?)? };
            let revision = parse_revision(parse(next()?)?)?;
            let terms = parse_terms(&parse::<String>(next()?)?, &revision.to_string());
            let answers = if word == "taken" {
                vec![Answer::Reserved; purchases]
            } else {
                // A reservation that cannot be read is one buyer's trouble.
                (0..purchases)
                    .map(|_| Ok(parse_answer(next()?).unwrap_or(Answer::Unreadable)))
                    .collect::<Result<_, _>>()?
            };
            Ok((Admission::Open { epoch: version.epoch, revision, terms, answers }, Some(version)))
        }
        "not_started" => {
            let starts = Timestamp::from_unix_ms(parse(next()?)?).ok_or_else(|| nonsense("the start"))?;
            Ok((Admission::Denied(Denial::NotStarted(starts)), None))
        }
        "ended" => Ok((Admission::Denied(Denial::Ended), None)),
        "paused" => Ok((Admission::Denied(Denial::Paused), None)),
        refused => status(refused).and_then(|()| Err(nonsense(refused))),
    }
}

fn parse_answer(value: Value) -> Result<Answer, GateError> {
    match value {
        Value::Int(0) => Ok(Answer::Reserved),
        Value::Int(-1) => Ok(Answer::Denied(Denial::SoldOut)),
        Value::Int(less @ ..=-2) => Ok(Answer::Denied(Denial::NotEnoughLeft(-1 - less))),
        Value::Int(ms @ 1..) => Ok(Answer::Denied(Denial::RateLimited(Duration::from_millis(ms as u64)))),
        held => {
            let held: String = parse(held)?;
            if let Some(left) = held.strip_prefix("address ") {
                return Ok(Answer::Denied(Denial::AddressLimit(left.parse().map_err(nonsense)?)));
            }
            if let Some(most) = held.strip_prefix("most ") {
                let most = most.parse::<i64>().map_err(nonsense)?.try_into().map_err(nonsense)?;
                return Ok(Answer::Denied(Denial::TooMany(most)));
            }
            match (held.split_once('+'), held.strip_suffix('-')) {
                (Some((held, revision)), _) => {
                    let revision = parse_revision(revision.parse().map_err(nonsense)?)?;
                    let Mark { order_id, quantity, .. } = mark::parse(held).ok_or_else(|| nonsense(held))?;
                    Ok(Answer::InFlight { order_id, quantity, revision })
                }
                (_, Some(held)) => already_purchased(held),
                _ => Err(nonsense(held)),
            }
        }
    }
}

fn already_purchased(held: &str) -> Result<Answer, GateError> {
    let Mark { order_id, payment, .. } = mark::parse(held).ok_or_else(|| nonsense(held))?;
    Ok(match payment {
        Some(_) => Answer::Revived(order_id),
        None => Answer::Denied(Denial::AlreadyPurchased(order_id)),
    })
}

/// `REVISION|TERMS`. Terms of another revision than the gate has do not count: a program that knows none has changed it since.
fn parse_terms(text: &str, revision: &str) -> Option<Terms> {
    let (of, terms) = text.split_once('|')?;
    if of == revision { terms.parse().ok() } else { None }
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
        return status(&word).and_then(|()| Err(nonsense(word)));
    }
    let epoch = parse(next()?)?;
    let answers = reply.map(|value| match value {
        Value::Int(0) => Ok(Answer::Reserved),
        Value::Int(-1) => Ok(Answer::Denied(Denial::SoldOut)),
        held => already_purchased(&parse::<String>(held)?),
    });
    Ok((epoch, answers.collect::<Result<_, _>>()?))
}

/// What a step that takes units for a late payment answered.
pub(super) fn parse_payment_admission(reply: Vec<Value>) -> Result<PaymentAdmission, GateError> {
    let mut reply = reply.into_iter();
    let mut next = || reply.next().ok_or_else(|| nonsense("a short reply"));
    let word: String = parse(next()?)?;
    match word.as_str() {
        "admitted" => Ok(PaymentAdmission::Admitted { epoch: parse(next()?)?, is_new: parse::<i64>(next()?)? == 1 }),
        "busy" => Ok(PaymentAdmission::Busy),
        "refused" => Ok(PaymentAdmission::Refused),
        other => status(other).and_then(|()| Err(nonsense(other))),
    }
}

/// What is in flight, and the first member that nobody can read, which is left out.
pub(super) fn parse_stale(reply: &[String]) -> Result<(Stale, Option<&str>), GateError> {
    match reply {
        [word, epoch, members @ ..] if word == "open" => {
            let parse = |[member, revision]: &[String; 2]| {
                let revision = Revision::try_from(revision.parse::<i64>().ok()?).ok()?;
                Some((mark::parse_in_flight(member)?, revision))
            };
            let (members, []) = members.as_chunks() else { return Err(nonsense("a member without a revision")) };
            let unreadable = members.iter().find(|member| parse(member).is_none()).map(|[member, _]| member.as_str());
            let epoch = epoch.parse().map_err(nonsense)?;
            let mut stale = Stale { epoch, purchases: Vec::new(), revisions: Vec::new(), late_payments: Vec::new() };
            for (member, revision) in members.iter().filter_map(parse) {
                match member {
                    InFlightEntry::Purchase(purchase) => {
                        stale.purchases.push(purchase);
                        stale.revisions.push(revision);
                    }
                    InFlightEntry::Late(late) => stale.late_payments.push(late),
                }
            }
            Ok((stale, unreadable))
        }
        [word] => status(word).and_then(|()| Err(nonsense(word))),
        _ => Err(nonsense("a reply of another form")),
    }
}

/// Says whether a gate has changed: its epoch, and `seq`, which begins anew with each epoch. Units that are taken do not count
/// as a change; releases, settings and openings do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GateVersion {
    pub(super) epoch: i64,
    seq: i64,
}

impl GateVersion {
    #[cfg(test)]
    pub(super) fn of(epoch: i64, seq: i64) -> Self {
        Self { epoch, seq }
    }
}

/// An open gate.
pub(super) struct OpenGate {
    pub(super) settings: SaleSettings,
    pub(super) version: GateVersion,
    /// Units that are taken.
    pub(super) taken: i64,
    /// Who holds them.
    pub(super) buyers: i64,
    pub(super) in_flight: i64,
}

/// What a gate's keys answered.
pub(super) struct GateReply {
    /// Those of [`super::keys::GATE_FIELDS`].
    fields: Value,
    buyers_sentinel: Value,
    buyers: Value,
    flight_sentinel: Value,
    flight: Value,
}

impl GateReply {
    /// Takes the answers to [`super::server::RedisAccess::ask_gate`].
    pub(super) fn read(reply: &mut impl Iterator<Item = Value>) -> Result<Self, GateError> {
        let mut next = || reply.next().ok_or_else(|| nonsense("a short reply"));
        let (fields, buyers_sentinel, buyers) = (next()?, next()?, next()?);
        Ok(Self { fields, buyers_sentinel, buyers, flight_sentinel: next()?, flight: next()? })
    }

    /// What there is of it on the server `server_id`. Something that cannot be read cannot be used, and is nothing.
    pub(super) fn found(self, server_id: &str) -> FoundGate {
        let fields: Vec<Option<String>> = parse(self.fields.clone()).unwrap_or_default();
        if let [Some(epoch), Some(home), Some(open), ..] = &fields[..]
            && home == server_id
            && open == "0"
            && let Ok(epoch) = epoch.parse()
        {
            return FoundGate::Closed(epoch);
        }
        match self.open(server_id) {
            Ok(Some(gate)) => FoundGate::Open(gate.version.epoch),
            _ => FoundGate::Nothing,
        }
    }

    /// The gate if it is open; `None`: closed, lost, or of another server.
    pub(super) fn open(self, server_id: &str) -> Result<Option<OpenGate>, GateError> {
        let fields: Vec<Option<String>> = parse(self.fields)?;
        let sentinel: Option<String> = parse(self.buyers_sentinel)?;
        let flight_sentinel: Option<String> = parse(self.flight_sentinel)?;
        let (buyers, in_flight): (i64, i64) = (parse(self.buyers)?, parse(self.flight)?);
        let Some((needed, [terms, extra])) = fields.split_last_chunk() else { return Err(nonsense("a short reply")) };
        let needed: Option<Vec<&str>> = needed.iter().map(Option::as_deref).collect();
        let Some(&[epoch, home, open, ver, stock, starts, ends, paused, seq]) = needed.as_deref() else {
            return Ok(None);
        };
        if home != server_id || open != "1" || sentinel.as_deref() != Some(epoch) || flight_sentinel.is_none() {
            return Ok(None);
        }
        let number = |text: &str| text.parse::<i64>().map_err(|_| nonsense(format!("`{text}` is no number")));
        let time =
            |text: &str| Timestamp::from_unix_ms(number(text)?).ok_or_else(|| nonsense(format!("`{text}` is no time")));
        let settings = SaleSettings {
            revision: number(ver)?,
            stock: number(stock)?,
            starts_at: time(starts)?,
            ends_at: if ends.is_empty() { None } else { Some(time(ends)?) },
            paused: paused == "1",
            terms: terms.as_deref().and_then(|terms| parse_terms(terms, ver)),
        };
        let version = GateVersion { epoch: number(epoch)?, seq: number(seq)? };
        let extra = extra.as_deref().map_or(Ok(0), number)?;
        // Less the sentinels.
        let (buyers, in_flight) = (buyers - 1, in_flight - 1);
        Ok(Some(OpenGate { settings, version, taken: buyers + extra, buyers, in_flight }))
    }
}

/// What users hold, behind the first three fields of a gate; `None`: the gate is not open.
pub(super) fn parse_held(gate: Value, buyers: Value, server_id: &str) -> Result<Option<Vec<Holding>>, GateError> {
    let (gate, buyers): (Vec<Option<String>>, Vec<Option<String>>) = (parse(gate)?, parse(buyers)?);
    let holding = |held: &Option<String>| match held {
        Some(held) => {
            let Mark { order_id: id, quantity, .. } = mark::parse(held).ok_or_else(|| nonsense(held))?;
            Ok(Holding::Order { id, quantity })
        }
        None => Ok(Holding::Nothing),
    };
    match (&gate[..], &buyers[..]) {
        ([Some(epoch), Some(home), Some(open)], [Some(sentinel), orders @ ..])
            if home == server_id && open == "1" && epoch == sentinel =>
        {
            orders.iter().map(holding).collect::<Result<_, _>>().map(Some)
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_by_which_the_script_denies_are_the_codes_of_the_api() {
        let script = include_str!("scripts/reserve.lua");
        for word in ["not_started", "ended", "paused"] {
            assert!(script.contains(&format!("return {{'{word}'")), "{word} is no reply of the script");
            let reply = vec![Value::SimpleString(word.to_owned()), Value::BulkString(b"1000".to_vec())];
            let (Admission::Denied(denial), None) = parse_admission(reply, 1).unwrap() else { panic!("{word}") };
            assert_eq!(denial.code(), word);
        }
    }
}
