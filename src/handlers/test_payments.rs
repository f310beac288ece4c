//! The test provider's page: what is to be paid, and two buttons. Plain HTML without a script.

use std::fmt::Write;
use std::sync::LazyLock;

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde::Deserialize;

use super::extract::PathId;
use super::extract::body::RawBody;
use super::state::AppState;
use crate::error::{Error, Result};
use crate::model::{Currency, OrderId, OrderStatus, PaymentId, PaymentStatus};
use crate::services::{TestOutcome, TestPage};

const STYLE: &str = ":root{color-scheme:light dark;--ink:#1d1d1b;--soft:#57564f;--paper:#f7f6f2;--card:#fff;--line:#d8d6cd;--accent:#0b5b4a;--on:#fff}\
@media (prefers-color-scheme:dark){:root{--ink:#f1f0ec;--soft:#b4b2a9;--paper:#121413;--card:#1b1e1c;--line:#3a3e3b;--accent:#5fcfae;--on:#06231b}}\
body{font:18px/1.5 system-ui,'Noto Sans','Noto Sans CJK SC',sans-serif;margin:0;color:var(--ink);background:var(--paper)}\
main{max-width:28rem;margin:3rem auto;padding:0 1rem}h1{font-size:1.9rem;line-height:1.2;margin:0 0 1rem}\
dl{margin:1rem 0;padding:1rem 1.25rem;background:var(--card);border:1px solid var(--line);border-radius:1rem}dt{color:var(--soft);font-size:.9rem}\
dd{margin:0 0 .75rem;font-weight:600;overflow-wrap:anywhere}dd:last-child{margin:0}button{font:inherit;font-weight:600;width:100%;min-height:3.25rem;margin:0 0 .75rem;\
border:1px solid var(--soft);border-radius:.75rem;background:transparent;color:var(--ink);cursor:pointer}button[value=pay]{background:var(--accent);border-color:var(--accent);color:var(--on)}\
a{color:var(--accent)}:focus-visible{outline:3px solid var(--accent);outline-offset:3px}p{color:var(--soft)}";

/// Nothing is loaded and nothing runs; forms lead here only.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
});

/// The query of those who come from the pages of this program, and want to go back there.
const FROM_OUR_PAGES: &str = "shop";

fn order_page(order: OrderId) -> String {
    format!("/shop/orders/{order}")
}

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

/// `outcome=pay` or `outcome=decline`, as the page's form sends it; then back to the page, or with `?shop` to the order in our own.
pub(super) async fn submit(
    PathId(id): PathId<PaymentId>,
    request: HttpRequest,
    RawBody(body): RawBody,
    state: web::Data<AppState>,
) -> Result<HttpResponse> {
    let form: Form = serde_urlencoded::from_bytes(&body)
        .map_err(|_| Error::Invalid("outcome: must be pay or decline, in a form".to_owned()))?;
    state.payments.test(id, form.outcome).await?;
    let back = if request.query_string() == FROM_OUR_PAGES {
        order_page(state.payments.test_page(id).await?.payment.order_id)
    } else {
        format!("/pay/test/{id}")
    };
    Ok(HttpResponse::SeeOther().insert_header((header::LOCATION, back)).finish())
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
    let page = order_page(payment.order_id);
    let order = match order {
        OrderStatus::Unpaid => "waits for its payment",
        other => other.as_str(),
    };
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><main><h1>{title}</h1>\
         <dl><dt>For</dt><dd>{product}</dd><dt>Amount</dt><dd>{amount}</dd><dt>Order</dt><dd>{order}</dd></dl>\
         {rest}<p><a href=\"{page}\">Back to the order</a></p></main></body></html>\n"
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
