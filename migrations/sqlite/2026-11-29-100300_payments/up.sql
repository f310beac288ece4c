-- The same as in migrations/mysql, which says why.
CREATE TABLE payments (
    id BLOB NOT NULL PRIMARY KEY,
    order_id BLOB NOT NULL,
    provider TEXT NOT NULL,
    status TEXT NOT NULL,
    amount_cents INTEGER NOT NULL,
    currency TEXT,
    reference TEXT,
    unique_reference TEXT,
    pending_order BLOB,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX payments_pending_order ON payments (pending_order);
CREATE UNIQUE INDEX payments_unique_reference ON payments (provider, unique_reference);
CREATE INDEX payments_order ON payments (order_id);

CREATE TABLE payment_events (
    provider TEXT NOT NULL,
    event_id TEXT NOT NULL,
    payment_id BLOB NOT NULL,
    received_at TEXT NOT NULL,
    PRIMARY KEY (provider, event_id)
) STRICT;
CREATE INDEX payment_events_received_at ON payment_events (received_at);
