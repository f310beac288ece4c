//! Stripe: a Checkout Session for each payment, signed callbacks, refunds that are asked for.
//!
//! A session lives 30 minutes at least and 24 hours at most. Where the order must be paid sooner, we end it ourselves.

mod amounts;
mod api;
mod event;
mod signature;

use std::time::Duration;

use self::amounts::to_stripe;
use self::api::Api;
pub(in crate::services::payments) use self::api::{Asked, StripeError};
use self::event::{Refund, Session, Standing, log_failed, refunded};
use self::signature::EndpointKey;
use super::super::callback::{Callback, Read};
use super::super::rules::Told;
use crate::config::{CheckoutUrl, Payments};
use crate::error::{Error, Result};
use crate::model::{Currency, Payment, Timestamp};

/// The shortest life of a session, and some time for the request to get there.
const SHORTEST: Duration = Duration::from_secs(30 * 60 + 60);
/// The longest.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// See the module.
pub(in crate::services::payments) struct Stripe {
    api: Api,
    key: EndpointKey,
    return_url: CheckoutUrl,
}

/// What is paid for, as the buyer sees it there.
#[derive(Debug)]
pub(in crate::services::payments) struct Item<'i> {
    /// The product.
    pub(in crate::services::payments) name: &'i str,
    /// What one unit costs.
    pub(in crate::services::payments) price_cents: i64,
    /// How many.
    pub(in crate::services::payments) units: i64,
    /// Of what.
    pub(in crate::services::payments) currency: Currency,
}

/// Where a payment is paid.
#[derive(Debug)]
pub(in crate::services::payments) struct CheckoutSession {
    /// Stripe's own id of it.
    pub(in crate::services::payments) id: String,
    /// Its page.
    pub(in crate::services::payments) url: String,
}

/// What Stripe says when it is asked.
#[derive(Debug)]
pub(in crate::services::payments) enum Finding {
    /// The buyer may still pay.
    Open,
    /// It is under way: to be asked again.
    UnderWay,
    /// What a callback would have told.
    Told(Callback),
}

#[derive(serde::Deserialize)]
struct Refunds {
    data: Vec<Refund>,
}

impl Stripe {
    /// As it is configured, which was checked.
    pub(super) fn new(settings: &Payments) -> Result<Self> {
        let stripe = &settings.stripe;
        let return_url = CheckoutUrl::parse(&stripe.return_url).map_err(Error::Internal)?;
        let key = EndpointKey::new(&stripe.webhook_secret);
        Ok(Self { api: Api::new(&stripe.api_base, &stripe.secret_key), key, return_url })
    }

    /// Reads a callback, if it is Stripe's. `header` finds a header by its name.
    pub(super) fn read<'h>(
        &self,
        header: impl Fn(&str) -> Option<&'h str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Read> {
        self.key.verify(header("stripe-signature"), body, now)?;
        event::read(body)
    }

    /// When a payment that began now is to be asked about, if nothing was heard by `last`, when nobody is to pay any more.
    pub(in crate::services::payments) fn asks_at(last: Option<Timestamp>, now: Timestamp) -> Timestamp {
        let over = now.after(LONGEST);
        last.map_or(over, |last| last.min(over))
    }

    /// Opens the checkout of a payment, or finds it. It ends at `last`, if Stripe can do that.
    pub(in crate::services::payments) async fn open_checkout(
        &self,
        payment: &Payment,
        item: &Item<'_>,
        last: Option<Timestamp>,
    ) -> Asked<CheckoutSession> {
        let code = item.currency.code();
        let Some(price) = to_stripe(item.price_cents, item.currency) else {
            let message = format!("an amount of {} {code} cannot be written as Stripe writes it", item.price_cents);
            return Err(StripeError::Refused { code: "amount".to_owned(), message });
        };
        let (id, order) = (payment.id.to_string(), payment.order_id.to_string());
        let back = self.return_url.fill([&id, &order, &payment.amount_cents.to_string(), code]);
        let now = Timestamp::now();
        let last = last.filter(|last| (now.after(SHORTEST)..now.after(LONGEST)).contains(last));
        let last = last.map(|last| (last.unix_ms() / 1000).to_string());
        // What is asked for is part of the key: another end is another request.
        let key = format!("checkout-{id}-{}-{}", payment.spent_tries, last.as_deref().unwrap_or("0"));
        let mut form = vec![
            ("mode", "payment".to_owned()),
            ("client_reference_id", id.clone()),
            ("metadata[payment_id]", id.clone()),
            ("metadata[order_id]", order),
            // Goes on to the charge, whose refunds name it so.
            ("payment_intent_data[metadata][payment_id]", id),
            ("line_items[0][quantity]", item.units.to_string()),
            ("line_items[0][price_data][currency]", code.to_ascii_lowercase()),
            ("line_items[0][price_data][unit_amount]", price.to_string()),
            ("line_items[0][price_data][product_data][name]", item.name.to_owned()),
            ("success_url", back.clone()),
            ("cancel_url", back),
        ];
        form.extend(last.map(|last| ("expires_at", last)));
        let session: Session = self.api.post("/v1/checkout/sessions".to_owned(), key, form).await?;
        match session.url {
            Some(url) => Ok(CheckoutSession { id: session.id, url }),
            // It was paid or has ended meanwhile.
            None => Err(StripeError::Spent("the checkout has no address any more".to_owned())),
        }
    }

    /// Asks what became of a payment; `ends`: nobody is to pay any more.
    pub(in crate::services::payments) async fn ask(&self, payment: &Payment, ends: bool) -> Asked<Finding> {
        let Some(checkout) = &payment.checkout else {
            // Nobody was ever told where to pay.
            let callback = Callback {
                id: format!("unopened-{}", payment.id),
                told: Told::Failed,
                payment: payment.id,
                reference: None,
                amount_cents: None,
                currency: None,
            };
            return Ok(Finding::Told(callback));
        };
        if ends {
            let key = format!("end-{}-{}", payment.id, payment.spent_tries);
            let ended =
                self.api.post::<Session>(format!("/v1/checkout/sessions/{checkout}/expire"), key, Vec::new()).await;
            match ended {
                Ok(session) => return Ok(found(session, payment)),
                // It is not open any more.
                Err(StripeError::Refused { .. }) => {}
                Err(problem) => return Err(problem),
            }
        }
        let session = self.api.get(format!("/v1/checkout/sessions/{checkout}")).await?;
        Ok(found(session, payment))
    }

    /// Asks for the money of a payment to be given back, or what became of that.
    pub(in crate::services::payments) async fn refund(&self, payment: &Payment) -> Asked<Finding> {
        let intent = match (&payment.reference, &payment.checkout) {
            (Some(reference), _) => Some(reference.clone()),
            (None, Some(checkout)) => {
                self.api.get::<Session>(format!("/v1/checkout/sessions/{checkout}")).await?.payment_intent
            }
            (None, None) => None,
        };
        // It goes into an address.
        let is_id = |text: &String| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let Some(intent) = intent.filter(is_id) else {
            return Err(StripeError::Refused {
                code: "no_reference".to_owned(),
                message: "there is nothing to refund".to_owned(),
            });
        };
        let id = payment.id.to_string();
        let told = |of: &str| Finding::Told(refunded(format!("refund-{of}"), payment.id, Some(intent.clone())));
        // Ours, by what we gave Stripe to keep with them: a merchant can give back a part at Stripe, too.
        let known: Refunds = self.api.get(format!("/v1/refunds?payment_intent={intent}&limit=100")).await?;
        let is_ours =
            |refund: &&Refund| refund.metadata.as_ref().is_some_and(|kept| kept.payment_id.as_ref() == Some(&id));
        let ours: Vec<&Refund> = known.data.iter().filter(is_ours).collect();
        if let Some(finding) = ours.iter().find_map(|refund| refund.finding(told)) {
            return Ok(finding);
        }
        // Those that failed: the next one is another request.
        let key = format!("refund-{id}-{}-{}", ours.len(), payment.spent_tries);
        let form = vec![("payment_intent", intent.clone()), ("metadata[payment_id]", id)];
        match self.api.post::<Refund>("/v1/refunds".to_owned(), key, form).await {
            Ok(refund) => Ok(refund.finding(told).unwrap_or_else(|| {
                log_failed(&refund);
                Finding::UnderWay
            })),
            Err(problem) if problem.code() == Some("charge_already_refunded") => Ok(told(&intent)),
            Err(problem) => Err(problem),
        }
    }
}

impl Refund {
    /// `None`: it came to nothing.
    fn finding(&self, told: impl Fn(&str) -> Finding) -> Option<Finding> {
        match self.status.as_deref() {
            Some("succeeded") => Some(told(&self.id)),
            Some("failed" | "canceled") => None,
            _ => Some(Finding::UnderWay),
        }
    }
}

fn found(session: Session, payment: &Payment) -> Finding {
    let told = match session.standing() {
        Standing::Open => return Finding::Open,
        Standing::Processing => return Finding::UnderWay,
        Standing::Paid => Told::Succeeded,
        Standing::Expired => Told::Failed,
    };
    // A name that no event has: what both tell changes something once.
    let id = format!("asked-{}", session.id);
    Finding::Told(session.tells(id, payment.id, told))
}
