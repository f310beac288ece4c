//! Amounts as Stripe writes them: mostly the minor units of ISO 4217, as ours. Where it counts another way, it is converted exactly or
//! not at all.

use iso_currency::Currency as Iso;

use crate::model::Currency;

/// Stripe's unit is a hundredth of ours: the currency has no decimals any more, but had when Stripe began.
const HUNDREDTHS: [&str; 2] = ["ISK", "UGX"];
/// Stripe's unit is the whole, though ISO 4217 counts decimals.
const WHOLE: [&str; 1] = ["MGA"];

/// `None`: Stripe cannot take this amount of it.
pub(super) fn to_stripe(amount: i64, currency: Currency) -> Option<i64> {
    let (times, per) = ratio(currency.code());
    let amount = amount.checked_mul(times)?;
    // Of three decimals the last one must be 0.
    let step = if Iso::from_code(currency.code()).and_then(Iso::exponent) == Some(3) { 10 } else { 1 };
    (amount % per == 0 && amount % step == 0).then_some(amount / per)
}

/// In our units. `None`: there is no such amount here.
pub(super) fn from_stripe(amount: i64, currency: &str) -> Option<i64> {
    let (times, per) = ratio(currency);
    let amount = amount.checked_mul(per)?;
    (amount % times == 0).then_some(amount / times)
}

/// How many of Stripe's units are how many of ours.
fn ratio(currency: &str) -> (i64, i64) {
    if HUNDREDTHS.contains(&currency) {
        (100, 1)
    } else if WHOLE.contains(&currency) {
        (1, 100)
    } else {
        (1, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn currency(code: &str) -> Currency {
        serde_json::from_value(code.into()).unwrap()
    }

    #[test]
    fn amounts_are_those_of_stripes_table_and_come_back_as_they_went() {
        for (code, ours, theirs) in [
            ("USD", 1990, Some(1990)),
            ("JPY", 500, Some(500)),
            ("KRW", 12, Some(12)),
            ("KWD", 5120, Some(5120)),
            ("KWD", 5124, None),
            ("ISK", 5, Some(500)),
            ("UGX", 7, Some(700)),
            ("MGA", 500, Some(5)),
            ("MGA", 501, None),
            ("ISK", i64::MAX, None),
        ] {
            let sent = to_stripe(ours, currency(code));
            assert_eq!(sent, theirs, "{code} {ours}");
            if let Some(sent) = sent {
                assert_eq!(from_stripe(sent, code), Some(ours), "{code} {ours}");
            }
        }
        assert_eq!(from_stripe(501, "ISK"), None);
    }
}
