-- Tries to pay an order. pending_order: the order while the payment is pending, so that an order has one pending payment at most.
-- unique_reference: the provider's own id where nobody else may have it; NULL for what an administrator writes, who may note one
-- transfer for two orders. currency NULL: the shop's own, as in product_revisions.
CREATE TABLE IF NOT EXISTS payments (
    id BINARY(16) NOT NULL PRIMARY KEY,
    order_id BINARY(16) NOT NULL,
    provider VARCHAR(16) NOT NULL,
    status VARCHAR(16) NOT NULL,
    amount_cents BIGINT NOT NULL,
    currency CHAR(3) NULL,
    reference VARCHAR(255) NULL,
    unique_reference VARCHAR(255) NULL,
    pending_order BINARY(16) NULL,
    created_at DATETIME(3) NOT NULL,
    updated_at DATETIME(3) NOT NULL,
    UNIQUE KEY payments_pending_order (pending_order),
    UNIQUE KEY payments_unique_reference (provider, unique_reference),
    KEY payments_order (order_id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What providers have told, each by the provider's own id of it: a repeat finds its row and does nothing. Forgotten after 30 days.
CREATE TABLE IF NOT EXISTS payment_events (
    provider VARCHAR(16) NOT NULL,
    event_id VARCHAR(255) NOT NULL,
    payment_id BINARY(16) NOT NULL,
    received_at DATETIME(3) NOT NULL,
    PRIMARY KEY (provider, event_id),
    KEY payment_events_received_at (received_at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
