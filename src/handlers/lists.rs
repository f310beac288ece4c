//! What every list takes: how many entries, and from where on.

use std::str::FromStr;

use serde::Deserialize;
use utoipa::IntoParams;

use crate::error::{Error, Result};

/// Of lists without a filter.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// Entries of a page: 1 to 100, 20 unless asked otherwise.
    #[param(minimum = 1, maximum = 100)]
    pub(super) limit: Option<usize>,
    /// The `next_cursor` of a page before.
    #[param(pattern = "^[1-9][0-9]{0,14}$")]
    pub(super) cursor: Option<String>,
}

/// Entries of a page: 1 to 100, 20 unless asked otherwise.
pub(super) fn page_limit(limit: Option<usize>) -> Result<usize> {
    match limit.unwrap_or(20) {
        limit @ 1..=100 => Ok(limit),
        _ => Err(Error::Invalid("limit: must be 1 to 100".to_owned())),
    }
}

/// A cursor is the `next_cursor` of a page before.
pub(super) fn page_cursor<T: FromStr>(cursor: Option<String>) -> Result<Option<T>> {
    let invalid = |_| Error::Invalid("cursor: must be the next_cursor of an earlier page".to_owned());
    cursor.map(|cursor| cursor.parse().map_err(invalid)).transpose()
}
