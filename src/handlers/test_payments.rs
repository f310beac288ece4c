//! The test provider's page: what is to be paid, and two buttons. Plain HTML without a script.

use std::fmt::Write;
use std::sync::LazyLock;

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde::Deserialize;

use super::extract::PathId;
use super::extract::body::RawBody;
use super::state::AppState;
use crate::error::{Error, Result};
use crate::model::{Currency, OrderStatus, PaymentId, PaymentStatus};
use crate::services::{TestOutcome, TestPage};

const STYLE: &str = "body{font:18px/1.5 system-ui,sans-serif;max-width:30rem;margin:3rem auto;padding:0 1rem;color:#111;background:#fff}\
h1{font-size:1.5rem}dt{color:#555}dd{margin:0 0 .75rem}button{font:inherit;padding:.6rem 1.2rem;margin:0 .5rem .5rem 0;border:2px solid #111;\
border-radius:.4rem;background:#fff;color:#111}button[value=pay]{background:#111;color:#fff}";

/// Nothing is loaded and nothing runs; forms lead here only.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
});

#[derive(Deserialize)]
struct Form {
    outcome: TestOutcome,
}

pub(super) async fn show(PathId(id): PathId<PaymentId>, state: web::Data<AppState>) -> Result<HttpResponse> {
    let page = state.payments.test_page(id).await?;
    Ok(HttpResponse::Ok()
        .content_type(ContentType::html())
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY.as_str()))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(render(&page)))
}

/// `outcome=pay` or `outcome=decline`, as the page's form sends it; then back to the page.
pub(super) async fn submit(
    PathId(id): PathId<PaymentId>,
    RawBody(body): RawBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let form: Form = serde_urlencoded::from_bytes(&body)
        .map_err(|_| Error::Invalid("outcome: must be pay or decline, in a form".to_owned()))?;
    state.payments.test(id, form.outcome).await?;
    Ok(HttpResponse::SeeOther().insert_header((header::LOCATION, format!("/pay/test/{id}"))).finish())
}

fn render(page: &TestPage) -> String {
    let TestPage { product, order, payment } = page;
    let (product, amount) = (escaped(product), amount(payment.amount_cents, payment.currency));
    let (title, rest) = match payment.status {
        PaymentStatus::Pending => (
            format!("Pay {amount}"),
            "<form method=\"post\"><button name=\"outcome\" value=\"pay\">Pay</button>\
             <button name=\"outcome\" value=\"decline\">Decline</button></form>\
             <p>This is a test: no money moves.</p>",
        ),
        PaymentStatus::Succeeded => ("Paid".to_owned(), "<p role=\"status\">Your order is paid.</p>"),
        PaymentStatus::Failed => {
            ("Declined".to_owned(), "<p role=\"status\">No money moved. You may begin another payment.</p>")
        }
        PaymentStatus::RefundDue => (
            "To be refunded".to_owned(),
            "<p role=\"status\">The order could not be paid any more. You get the money back.</p>",
        ),
        PaymentStatus::Refunded => ("Refunded".to_owned(), "<p role=\"status\">You got the money back.</p>"),
    };
    let order = match order {
        OrderStatus::Unpaid => "waits for its payment",
        other => other.as_str(),
    };
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><main><h1>{title}</h1>\
         <dl><dt>For</dt><dd>{product}</dd><dt>Amount</dt><dd>{amount}</dd><dt>Order</dt><dd>{order}</dd></dl>\
         {rest}</main></body></html>\n"
    )
}

/// As people write it: `19.90 USD`.
fn amount(cents: i64, currency: Currency) -> String {
    let digits = usize::from(currency.digits());
    let (unit, cents) = (10_i64.pow(currency.digits().into()), cents.max(0));
    match digits {
        0 => format!("{cents} {currency}"),
        _ => format!("{}.{:0digits$} {currency}", cents / unit, cents % unit),
    }
}

/// A merchant's text in HTML.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut html, letter| {
        match letter {
            '&' | '<' | '>' | '"' | '\'' => {
                let _ = write!(html, "&#{};", u32::from(letter));
            }
            other => html.push(other),
        }
        html
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_the_digits_of_their_currency() {
        let shown = |cents, code: &str| amount(cents, Currency::try_from(code).unwrap());
        assert_eq!(shown(1_990, "USD"), "19.90 USD");
        assert_eq!(shown(5, "EUR"), "0.05 EUR");
        assert_eq!(shown(1_990, "JPY"), "1990 JPY");
        assert_eq!(shown(1_990, "KWD"), "1.990 KWD");
        assert_eq!(shown(0, "USD"), "0.00 USD");
    }

    #[test]
    fn a_text_in_a_page_is_only_text() {
        assert_eq!(escaped(r#"<b a="1">&'ß"#), "&#60;b a=&#34;1&#34;&#62;&#38;&#39;ß");
    }
}
