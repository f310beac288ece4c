//! Fields of requests that change something: what is absent stays as it is.

use serde::{Deserialize, Deserializer};

/// A field that is there; `null` is a value like any other, and mostly a wrong one.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(field: D) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}
