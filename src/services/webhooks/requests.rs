//! What administrators ask of endpoints, and what makes it invalid.

use garde::Validate;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, Type};

use crate::model::{EventType, EventTypes, is_plain, plain_text_schema};
use crate::services::fields::present;

/// As many as the table holds.
const MAX_DESCRIPTION_CHARS: usize = 255;

/// Body of `POST /admin/webhooks`.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateWebhook)]
pub struct CreateEndpoint {
    /// Begins with `https://`, or `http://` where private addresses are allowed.
    // Checked by `target`.
    #[garde(skip)]
    #[schema(format = "uri", max_length = 2048, pattern = "^https?://.+", example = "https://shop.example/hooks")]
    pub(super) url: String,
    #[serde(default, deserialize_with = "events")]
    #[garde(inner(custom(is_some)))]
    #[schema(schema_with = events_schema)]
    pub(super) events: Option<EventTypes>,
    #[serde(default)]
    #[garde(custom(is_description))]
    #[schema(schema_with = description_schema)]
    pub(super) description: String,
}

/// Body of `PATCH /admin/webhooks/{id}`: what is absent stays as it is.
#[derive(Debug, Default, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PatchWebhook)]
pub struct PatchEndpoint {
    #[serde(default, deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = String, format = "uri", max_length = 2048, pattern = "^https?://.+")]
    pub(super) url: Option<String>,
    #[serde(default, deserialize_with = "events")]
    #[garde(inner(custom(is_some)))]
    #[schema(schema_with = events_schema)]
    pub(super) events: Option<EventTypes>,
    #[serde(default, deserialize_with = "present")]
    #[garde(inner(custom(is_description)))]
    #[schema(schema_with = description_schema)]
    pub(super) description: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = bool)]
    pub(super) active: Option<bool>,
}

/// Nobody registers for tests: they come anyway.
fn events<'de, D: Deserializer<'de>>(value: D) -> Result<Option<EventTypes>, D::Error> {
    let names: Vec<String> = Vec::deserialize(value)?;
    let parse = |name: &String| {
        let event_type = name.parse().ok().filter(|event_type| EventType::ALL.contains(event_type));
        event_type.ok_or_else(|| {
            let known = EventType::ALL.map(EventType::as_str).join(", ");
            serde::de::Error::custom(format!("must be some of {known}"))
        })
    };
    names.iter().map(parse).collect::<Result<EventTypes, _>>().map(Some)
}

fn events_schema() -> Array {
    let names = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(EventType::ALL.map(EventType::as_str)));
    ArrayBuilder::new().items(names).min_items(Some(1)).build()
}

fn description_schema() -> Object {
    plain_text_schema(0, MAX_DESCRIPTION_CHARS)
}

fn is_some(events: &EventTypes, (): &()) -> garde::Result {
    if events.is_empty() { Err(garde::Error::new("must name at least one type of events")) } else { Ok(()) }
}

fn is_description(text: &str, (): &()) -> garde::Result {
    if text.chars().count() > MAX_DESCRIPTION_CHARS {
        return Err(garde::Error::new(format!("must be at most {MAX_DESCRIPTION_CHARS} characters")));
    }
    if !text.is_empty() && !crate::model::is_visible(text) {
        return Err(garde::Error::new("must not be all invisible"));
    }
    is_plain(text).map_err(garde::Error::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> Option<String> {
        match serde_json::from_str::<CreateEndpoint>(json) {
            Err(error) => Some(error.to_string()),
            Ok(request) => request.validate().err().map(|report| report.to_string()),
        }
    }

    #[test]
    fn an_endpoint_is_for_types_that_there_are() {
        for good in [
            r#"{"url":"https://shop.example"}"#,
            r#"{"url":"x","events":["order.paid","order.paid"],"description":"Stock"}"#,
        ] {
            assert_eq!(problem(good), None, "{good}");
        }
        for bad in [
            r#"{}"#,
            r#"{"url":null}"#,
            r#"{"url":"x","events":[]}"#,
            r#"{"url":"x","events":null}"#,
            r#"{"url":"x","events":"order.paid"}"#,
            r#"{"url":"x","events":["order.returned"]}"#,
            r#"{"url":"x","events":["webhook.test"]}"#,
            r#"{"url":"x","description":"a\u0000b"}"#,
            r#"{"url":"x","description":"\u200b"}"#,
            r#"{"url":"x","secret":"whsec_AAAA"}"#,
        ] {
            assert!(problem(bad).is_some(), "{bad}");
        }
        for bad in [r#"{"url":null}"#, r#"{"events":null}"#, r#"{"active":"yes"}"#, r#"{"description":null}"#] {
            assert!(serde_json::from_str::<PatchEndpoint>(bad).is_err(), "{bad}");
        }
    }
}
