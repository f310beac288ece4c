//! Pages of lists.

use serde::Serialize;
use utoipa::ToSchema;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page of at most `limit` from a list that was asked for one entry more. `go_on_after`: where the list
    /// goes on although there are not more entries here, for some were left out.
    pub(super) fn cut(
        mut items: Vec<T>,
        limit: usize,
        go_on_after: Option<String>,
        cursor: impl Fn(&T) -> String,
    ) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = if more { items.last().map(cursor) } else { go_on_after };
        Self { items, next_cursor }
    }
}
