//! What the document says of types that are more than the fields they have: ids, times, currencies.

use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Array, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::handlers::extract::PathId;
use crate::model::{
    AddressLimit, Currency, DeliveryId, EndpointId, EventType, EventTypes, OrderId, PaymentId, PaymentWindow,
    ProductId, Quantity, Timestamp, UserId,
};

macro_rules! schema {
    ($type:ty, $schema:expr) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $type {}
    };
}

fn whole_number(description: &str, least: i64, most: i64, example: i64) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .description(Some(description))
        .minimum(Some(least))
        .maximum(Some(most))
        .examples([json!(example)])
        .build()
}

fn text(description: &str, format: Option<KnownFormat>, pattern: Option<&str>, example: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(format.map(SchemaFormat::KnownFormat))
        .pattern(pattern)
        .description(Some(description))
        .examples([json!(example)])
        .build()
}

/// The first digit says that it is of the years before 9751: what is later than 9999 is refused.
fn uuid(description: &str) -> Object {
    let pattern = "^[0-9a-d][0-9a-f]{7}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$";
    text(description, Some(KnownFormat::Uuid), Some(pattern), EXAMPLE_ID)
}

/// An id of an order or of a payment.
pub(super) const EXAMPLE_ID: &str = "019a2b3c-4d5e-7f60-8a1b-2c3d4e5f6071";
/// A start of a sale.
pub(super) const EXAMPLE_TIME: &str = "2027-01-01T20:00:00.000Z";

schema!(ProductId, whole_number("Id of a product.", 1, ProductId::GREATEST, 7));
schema!(UserId, whole_number("Id of a user.", 1, UserId::GREATEST_KNOWN, 42));
schema!(EndpointId, whole_number("Id of an endpoint of webhooks.", 1, ProductId::GREATEST, 3));
schema!(DeliveryId, whole_number("Id of a delivery to an endpoint.", 1, ProductId::GREATEST, 1201));
schema!(Quantity, whole_number("Units of one order.", 1, 10, 1));
schema!(
    AddressLimit,
    whole_number("Units of a product that buyers of one network address may take in all.", 1, 10_000_000, 4)
);
schema!(PaymentWindow, whole_number("How long an order may stay unpaid, in seconds.", 5, 2_592_000, 900));
schema!(OrderId, uuid("Id of an order: a UUIDv7 in small letters."));
schema!(PaymentId, uuid("Id of a payment: a UUIDv7 in small letters."));
schema!(
    Timestamp,
    text("An instant of the years 1970 to 9999: RFC 3339, UTC.", Some(KnownFormat::DateTime), None, EXAMPLE_TIME)
);
schema!(Currency, currency());
schema!(EventTypes, Array::new(event_type()));

/// Every one that is taken.
fn currency() -> Object {
    let letters = || 'A'..='Z';
    let codes =
        letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| String::from_iter([a, b, c]))));
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(codes.filter(|code| Currency::try_from(code.as_str()).is_ok())))
        .description(Some("A currency of ISO 4217."))
        .examples([json!("USD")])
        .build()
}

fn event_type() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(EventType::ALL.map(EventType::as_str))).build()
}

impl<T: ToSchema> IntoParams for PathId<T> {
    fn into_params(
        _: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
    ) -> Vec<utoipa::openapi::path::Parameter> {
        let id = utoipa::openapi::path::ParameterBuilder::new()
            .name("id")
            .parameter_in(utoipa::openapi::path::ParameterIn::Path)
            .required(utoipa::openapi::Required::True)
            .schema(Some(T::schema()));
        vec![id.build()]
    }
}

/// What a provider that speaks Standard Webhooks tells.
#[derive(ToSchema)]
#[schema(as = PaymentCallback)]
#[expect(dead_code, reason = "callbacks are read leniently; this says what to send")]
pub(in crate::handlers) struct Callback {
    /// `payment.succeeded`, `payment.failed` or `payment.refunded`; what is not known is remembered and changes nothing.
    #[schema(example = "payment.succeeded")]
    r#type: String,
    timestamp: Timestamp,
    data: CallbackData,
}

/// Of which payment.
#[derive(ToSchema)]
#[schema(as = PaymentCallbackData)]
#[expect(dead_code, reason = "as above")]
struct CallbackData {
    payment_id: PaymentId,
    /// The provider's own id of the payment.
    #[schema(min_length = 1, max_length = 255)]
    reference: String,
    /// What came, in minor units.
    #[schema(minimum = 0)]
    amount_cents: i64,
    currency: Currency,
}

/// Of replies with an `ETag`.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "handlers read it")]
pub(in crate::handlers) struct Conditional {
    /// The `ETag` of what the client has: then 304.
    #[param(rename = "If-None-Match")]
    tag: Option<String>,
}

/// Of changes that may depend on a product's revision.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "handlers read it")]
pub(in crate::handlers) struct ForRevision {
    /// The `revision` that the product must still have, in quotes; several are separated by commas. `*` is any.
    #[param(rename = "If-Match", example = "\"3\"", pattern = r#"^(\*|"[0-9]{1,15}"(, ?"[0-9]{1,15}")*)$"#)]
    revisions: Option<String>,
}

/// Of requests that are safe to repeat with a key.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "handlers read it")]
pub(in crate::handlers) struct Idempotent {
    /// The same key again gives the first answer, for a day.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255, pattern = "^[!-~]+$")]
    key: Option<String>,
}

/// Of Standard Webhooks.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the service reads them")]
pub(in crate::handlers) struct CallbackHeaders {
    /// The same for each try to send it.
    #[param(rename = "webhook-id")]
    id: Option<String>,
    /// In seconds since 1970, at most five minutes off.
    #[param(rename = "webhook-timestamp")]
    timestamp: Option<String>,
    /// `v1,` and the base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`; several are separated by spaces.
    #[param(rename = "webhook-signature")]
    signature: Option<String>,
    /// Of Stripe, instead of the three.
    #[param(rename = "Stripe-Signature")]
    stripe: Option<String>,
}
