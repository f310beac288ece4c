//! What a token that is believed says.

use super::tokens::Identity;

/// Who sends a request, and by what right.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    /// Who.
    pub identity: Identity,
    /// What a log-out is compared with.
    pub issued: Issued,
}

/// Who issued a token, and when.
#[derive(Debug, Clone, Copy)]
pub enum Issued {
    /// We did, in this generation of the account's.
    Here {
        /// Each log-out begins the next.
        generation: i64,
    },
    /// The shop's directory did, in this second since 1970.
    Elsewhere {
        /// By its clock.
        at: i64,
    },
}

impl Issued {
    /// What [`super::withdrawals::Withdrawals`] compare.
    pub(super) fn mark(self) -> i64 {
        match self {
            Self::Here { generation } => generation,
            Self::Elsewhere { at } => at,
        }
    }
}
