//! Which orders a merchant wants to see.

use std::str::FromStr;

use serde::Deserialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::error::{Error, Result};
use crate::model::{Order, OrderId, OrderStatus, ProductId, UserId};

/// As long as a reference can be, which is longer than a name or an id.
const MAX_SEARCH_CHARS: usize = 255;

/// The statuses that an order in the database has.
const WRITTEN: [OrderStatus; 5] =
    [OrderStatus::Unpaid, OrderStatus::Paid, OrderStatus::Cancelled, OrderStatus::Expired, OrderStatus::Rejected];

/// As the API's document describes them.
pub struct WrittenStatus;

impl PartialSchema for WrittenStatus {
    fn schema() -> RefOr<Schema> {
        let words = WRITTEN.map(OrderStatus::as_str);
        let status = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
        status.description(Some("Where an order stands. None that is written is `queued`.")).into()
    }
}

impl ToSchema for WrittenStatus {}

/// The query of a list of orders. What is not known is refused: a filter that is mistyped must not show, or export, everything.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OrderQuery {
    #[param(value_type = Option<ProductId>)]
    product_id: Option<String>,
    #[param(value_type = Option<WrittenStatus>, inline)]
    status: Option<String>,
    #[param(value_type = Option<UserId>)]
    user_id: Option<String>,
    /// Whether money of it is due back to its buyer.
    refund_due: Option<bool>,
    /// An order's id, a payment's reference or a user's name.
    #[param(min_length = 1, max_length = 255, pattern = r"\S")]
    q: Option<String>,
    /// Entries of a page: 1 to 100, 20 unless asked otherwise.
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<usize>,
    /// The `next_cursor` of a page before.
    #[param(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    pub cursor: Option<String>,
}

/// Which orders a merchant wants to see: those to which all of it applies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderFilter {
    pub(super) product: Option<ProductId>,
    pub(super) status: Option<OrderStatus>,
    pub(super) user: Option<UserId>,
    /// Whether one of its payments is due back; the payments say, not the order's row.
    pub(super) refund_due: Option<bool>,
    /// An order's id, a payment's reference or a user's name.
    pub(super) search: Option<String>,
}

impl OrderFilter {
    /// Checks what was asked for.
    pub fn of(query: &OrderQuery) -> Result<Self> {
        let status = match query.status.as_deref() {
            None => None,
            Some(word) => Some(written(word).ok_or_else(|| {
                let words: Vec<&str> = WRITTEN.iter().map(|status| status.as_str()).collect();
                Error::Invalid(format!("status: must be one of {}", words.join(", ")))
            })?),
        };
        let search = query.q.clone();
        if let Some(search) = &search
            && (search.trim().is_empty() || search.chars().count() > MAX_SEARCH_CHARS)
        {
            return Err(Error::Invalid(format!("q: must be 1 to {MAX_SEARCH_CHARS} characters, and not all spaces")));
        }
        let product = parsed("product_id", query.product_id.as_deref())?;
        let user = parsed("user_id", query.user_id.as_deref())?;
        Ok(Self { product, status, user, refund_due: query.refund_due, search })
    }

    /// The order that is searched for by its id.
    pub(super) fn searched_order(&self) -> Option<OrderId> {
        self.search.as_ref()?.parse().ok()
    }

    /// Whether it applies to an order, whatever found it, as far as its row says.
    pub(super) fn admits(&self, order: &Order) -> bool {
        self.product.is_none_or(|product| product == order.product_id)
            && self.status.is_none_or(|status| status == order.status)
            && self.user.is_none_or(|user| user == order.user_id)
    }
}

fn written(word: &str) -> Option<OrderStatus> {
    WRITTEN.into_iter().find(|status| status.as_str() == word)
}

fn parsed<T: FromStr<Err = &'static str>>(field: &str, text: Option<&str>) -> Result<Option<T>> {
    text.map(|text| text.parse().map_err(|problem| Error::Invalid(format!("{field}: {problem}")))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_filter_is_refused_by_its_name() {
        let with = |set: fn(&mut OrderQuery)| {
            let mut query = OrderQuery::default();
            set(&mut query);
            OrderFilter::of(&query)
        };
        assert_eq!(with(|_| {}).unwrap(), OrderFilter::default());
        let refused = [
            ("product_id", with(|query| query.product_id = Some("0".to_owned()))),
            ("user_id", with(|query| query.user_id = Some("x".to_owned()))),
            ("status", with(|query| query.status = Some("queued".to_owned()))),
            ("status", with(|query| query.status = Some("PAID".to_owned()))),
            ("q", with(|query| query.q = Some(" ".to_owned()))),
            ("q", with(|query| query.q = Some("x".repeat(256)))),
        ];
        for (field, refused) in refused {
            assert!(matches!(&refused, Err(Error::Invalid(why)) if why.starts_with(field)), "{field}: {refused:?}");
        }
        assert_eq!(with(|query| query.status = Some("paid".to_owned())).unwrap().status, Some(OrderStatus::Paid));
    }
}
