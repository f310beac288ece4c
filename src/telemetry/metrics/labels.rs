//! The words that metrics are told apart by.

/// What a click can be answered: `accepted`, and the codes of its refusals.
pub(super) const OUTCOMES: [&str; 10] = [
    "accepted",
    "already_purchased",
    "ended",
    "internal",
    "not_started",
    "paused",
    "product_not_found",
    "rate_limited",
    "sold_out",
    "unavailable",
];

/// Why a message was not confirmed.
pub(super) const PUBLISH_FAILURES: [&str; 3] = ["refused", "unavailable", "unclear"];

/// Tables of which a row may be left out.
pub(super) const TABLES: [&str; 13] = [
    "admin_log",
    "external_users",
    "order_changes",
    "orders",
    "outbox",
    "payment_deadlines",
    "payments",
    "product_revisions",
    "products",
    "token_withdrawals",
    "users",
    "webhook_deliveries",
    "webhook_endpoints",
];

/// What becomes of orders that are written.
pub(super) const CHANGES: [&str; 3] = ["cancelled", "expired", "paid"];

/// What becomes of a callback: what it did, and the codes of its refusals.
pub(super) const CALLBACKS: [&str; 13] = [
    "failed",
    "ignored",
    "internal",
    "invalid_request",
    "invalid_signature",
    "paid",
    "refund_due",
    "refunded",
    "repeated",
    "revived",
    "unavailable",
    "unchanged",
    "unknown",
];

/// What a try of a webhook can come to.
pub(super) const TRIES: [&str; 4] = ["delivered", "refused", "unanswered", "unsendable"];

/// What a log-in can come to.
pub(super) const LOG_INS: [&str; 5] = ["success", "invalid_credentials", "rate_limited", "unavailable", "internal"];
