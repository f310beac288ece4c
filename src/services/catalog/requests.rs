//! What merchants and buyers ask of the catalogue, and what makes it invalid.

use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::Object;

use crate::error::{Error, Result};
use crate::model::{
    AddressLimit, Currency, PaymentWindow, Product, Quantity, Timestamp, is_plain, is_visible, plain_text_schema,
};
use crate::services::admin_log::{MAX_REASON_CHARS, is_reason};
use crate::services::fields::present;

/// Units a sale can have in all.
pub(in crate::services) const MAX_STOCK: i64 = 10_000_000;
const MAX_PRICE_CENTS: i64 = 1_000_000_000_000;
const MAX_NAME_CHARS: usize = 200;
const MAX_DESCRIPTION_CHARS: usize = 5_000;
const MAX_URL_BYTES: usize = 2_048;

/// Body of `POST /products`.
#[derive(Debug, Deserialize, Serialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProduct {
    #[garde(custom(is_name))]
    #[schema(schema_with = name_schema)]
    pub(in crate::services) name: String,
    #[serde(default)]
    #[garde(custom(is_description))]
    #[schema(schema_with = description_schema)]
    pub(in crate::services) description: String,
    #[garde(custom(within(0, MAX_PRICE_CENTS)))]
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64, example = 1990)]
    pub(in crate::services) price_cents: i64,
    #[garde(custom(within(0, MAX_STOCK)))]
    #[schema(minimum = 0, maximum = 10_000_000, example = 100)]
    pub(in crate::services) stock: i64,
    #[garde(skip)]
    pub(in crate::services) starts_at: Option<Timestamp>,
    #[garde(skip)]
    pub(in crate::services) ends_at: Option<Timestamp>,
    // What came later: see `new_key` for why it is left out when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub(in crate::services) currency: Option<Currency>,
    /// `null`: no deadline.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = Option<PaymentWindow>)]
    pub(in crate::services) payment_window_seconds: Option<Option<PaymentWindow>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub(in crate::services) max_per_order: Option<Quantity>,
    /// Units that buyers of one network address (IPv6: one /64) may take in all. Absent: as many as there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub(in crate::services) max_per_address: Option<AddressLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_image_url)))]
    #[schema(format = "uri", max_length = 2048, pattern = "^https://.+")]
    pub(in crate::services) image_url: Option<String>,
    /// Only administrators see it, and nobody can buy, until it is published.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = bool)]
    pub(in crate::services) draft: Option<bool>,
}

/// Body of `PATCH /products/{id}`: what is absent stays as it is.
#[derive(Debug, Default, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchProduct {
    #[serde(default, deserialize_with = "present")]
    #[garde(inner(custom(is_name)))]
    #[schema(schema_with = name_schema)]
    pub(in crate::services) name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[garde(inner(custom(is_description)))]
    #[schema(schema_with = description_schema)]
    pub(in crate::services) description: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[garde(inner(custom(within(0, MAX_PRICE_CENTS))))]
    #[schema(value_type = i64, minimum = 0, maximum = 1_000_000_000_000_i64, example = 1990)]
    pub(in crate::services) price_cents: Option<i64>,
    #[serde(default, deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = Timestamp)]
    pub(in crate::services) starts_at: Option<Timestamp>,
    /// `null` makes the sale open-ended.
    #[serde(default, deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = Option<Timestamp>)]
    pub(in crate::services) ends_at: Option<Option<Timestamp>>,
    #[serde(default, deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = bool)]
    pub(in crate::services) paused: Option<bool>,
    /// Units that are offered in all.
    #[serde(default, deserialize_with = "present")]
    #[garde(inner(custom(within(0, MAX_STOCK))))]
    #[schema(value_type = i64, minimum = 0, maximum = 10_000_000, example = 100)]
    pub(in crate::services) stock: Option<i64>,
    #[serde(default, deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = Currency)]
    pub(in crate::services) currency: Option<Currency>,
    /// `null`: no deadline.
    #[serde(default, deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = Option<PaymentWindow>)]
    pub(in crate::services) payment_window_seconds: Option<Option<PaymentWindow>>,
    #[serde(default, deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = Quantity)]
    pub(in crate::services) max_per_order: Option<Quantity>,
    /// `null`: no limit of an address.
    #[serde(default, deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = Option<AddressLimit>)]
    pub(in crate::services) max_per_address: Option<Option<AddressLimit>>,
    /// `null`: none.
    #[serde(default, deserialize_with = "present")]
    #[garde(inner(inner(custom(is_image_url))))]
    #[schema(value_type = Option<String>, format = "uri", max_length = 2048, pattern = "^https://.+")]
    pub(in crate::services) image_url: Option<Option<String>>,
    /// `false` publishes a draft: it can be bought when its sale begins, unless it is paused in the same request. What is
    /// published stays so.
    #[serde(default, deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = bool)]
    pub(in crate::services) draft: Option<bool>,
    /// Why, for the log of changes.
    #[serde(default, deserialize_with = "present")]
    #[garde(inner(custom(is_reason)))]
    #[schema(schema_with = reason_schema)]
    pub(in crate::services) reason: Option<String>,
}

/// Body of `POST /products/{id}/restock`.
#[derive(Debug, Deserialize, Serialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Restock {
    #[garde(custom(within(1, MAX_STOCK)))]
    #[schema(minimum = 1, maximum = 10_000_000, example = 10)]
    pub(in crate::services) units: i64,
    /// Why, for the log of changes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[garde(inner(custom(is_reason)))]
    #[schema(schema_with = reason_schema)]
    pub(in crate::services) reason: Option<String>,
}

/// Body of `POST /admin/products/{id}/archive`, if there is one.
#[derive(Debug, Default, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Why, for the log of changes.
    #[serde(default, deserialize_with = "present")]
    #[garde(inner(custom(is_reason)))]
    #[schema(schema_with = reason_schema)]
    pub(in crate::services) reason: Option<String>,
}

/// Revisions of a product that a change was made for. Whoever changes what they saw names them, so that they do not undo
/// what somebody else changed meanwhile.
#[derive(Debug)]
pub enum Revisions {
    /// Whatever it has.
    Any,
    /// Only these.
    OneOf(Vec<i64>),
}

impl Revisions {
    /// Whether `product`, which is locked, has one of them.
    pub(in crate::services) fn expect(&self, product: &Product) -> Result<()> {
        match self {
            Self::OneOf(revisions) if !revisions.contains(&product.revision) => {
                Err(Error::PreconditionFailed { revision: product.revision })
            }
            _ => Ok(()),
        }
    }
}

/// `?state=` of the product list: looks at the sale window only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SaleFilter {
    /// Not begun.
    Upcoming,
    /// Begun and not ended.
    Live,
    /// Ended.
    Ended,
}

/// The end of a sale comes after its beginning.
pub(in crate::services) fn check_window(starts_at: Timestamp, ends_at: Option<Timestamp>) -> Result<()> {
    if ends_at.is_some_and(|end| end <= starts_at) {
        return Err(Error::Invalid("ends_at: must be after starts_at".to_owned()));
    }
    Ok(())
}

/// A number within bounds.
fn within(least: i64, most: i64) -> impl FnOnce(&i64, &()) -> garde::Result {
    move |value, ()| match (least..=most).contains(value) {
        true => Ok(()),
        false => Err(garde::Error::new(format!("must be {least} to {most}"))),
    }
}

fn reason_schema() -> Object {
    plain_text_schema(1, MAX_REASON_CHARS)
}

fn name_schema() -> Object {
    plain_text_schema(1, MAX_NAME_CHARS)
}

fn description_schema() -> Object {
    plain_text_schema(0, MAX_DESCRIPTION_CHARS)
}

fn is_name(name: &str, (): &()) -> garde::Result {
    if !is_visible(name) || name.chars().count() > MAX_NAME_CHARS {
        return Err(garde::Error::new(format!("must be 1 to {MAX_NAME_CHARS} characters, and not all invisible")));
    }
    is_plain(name).map_err(garde::Error::new)
}

/// Pages that are served over https load no other pictures.
fn is_image_url(url: &str, (): &()) -> garde::Result {
    let parsed = url::Url::parse(url).ok().filter(|url| url.scheme() == "https" && url.has_host());
    match parsed {
        Some(_) if url.len() <= MAX_URL_BYTES => is_plain(url).map_err(garde::Error::new),
        Some(_) => Err(garde::Error::new(format!("must be at most {MAX_URL_BYTES} bytes"))),
        None => Err(garde::Error::new("must be an address that begins with https://")),
    }
}

fn is_description(description: &str, (): &()) -> garde::Result {
    if description.chars().count() > MAX_DESCRIPTION_CHARS {
        return Err(garde::Error::new(format!("must be at most {MAX_DESCRIPTION_CHARS} characters")));
    }
    if !description.is_empty() && !is_visible(description) {
        return Err(garde::Error::new("must not be all invisible"));
    }
    is_plain(description).map_err(garde::Error::new)
}
