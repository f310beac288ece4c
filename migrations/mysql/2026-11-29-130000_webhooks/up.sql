-- Where the shop is told of what happens. events: names of types, with spaces between them. old_secret: signs beside the new one until
-- old_secret_until. failing_since: of the first failure since the last success. off_reason: why it was switched off by itself.
CREATE TABLE IF NOT EXISTS webhook_endpoints (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    url VARCHAR(2048) NOT NULL,
    events VARCHAR(512) NOT NULL,
    description VARCHAR(255) NOT NULL,
    active BOOLEAN NOT NULL,
    secret VARCHAR(128) NOT NULL,
    old_secret VARCHAR(128) NULL,
    old_secret_until DATETIME(3) NULL,
    failing_since DATETIME(3) NULL,
    off_reason VARCHAR(255) NULL,
    created_at DATETIME(3) NOT NULL,
    updated_at DATETIME(3) NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What has happened, written in the transaction that made it happen: one row for all objects to which the same happened in it. The id is
-- the `sequence` of their events: whoever changes an object holds its product's row. objects: their ids, packed. snapshot: the
-- object's row as it was then, as JSON, where it cannot be read later. pending is 1 until every endpoint that wants it has its
-- deliveries, then NULL; fanned_out: of how many objects that is done. event_key: what the ids of the events are made of.
CREATE TABLE IF NOT EXISTS outbox (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    event_type VARCHAR(32) NOT NULL,
    event_key BINARY(16) NOT NULL,
    objects MEDIUMBLOB NOT NULL,
    snapshot MEDIUMTEXT NULL,
    pending BOOLEAN NULL,
    fanned_out BIGINT NOT NULL DEFAULT 0,
    created_at DATETIME(3) NOT NULL,
    KEY outbox_pending (pending)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One event for one endpoint. status: pending, delivered or failed. due_at: when the next try may begin, NULL if there is none; while
-- somebody tries, when that may be taken for dead. lease: who tries.
CREATE TABLE IF NOT EXISTS webhook_deliveries (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    endpoint_id BIGINT NOT NULL,
    outbox_id BIGINT NOT NULL,
    event_id BINARY(16) NOT NULL,
    event_type VARCHAR(32) NOT NULL,
    object BINARY(16) NOT NULL,
    status VARCHAR(16) NOT NULL,
    tries BIGINT NOT NULL DEFAULT 0,
    due_at DATETIME(3) NULL,
    lease BINARY(16) NULL,
    last_status BIGINT NULL,
    last_error VARCHAR(255) NULL,
    last_try_at DATETIME(3) NULL,
    delivered_at DATETIME(3) NULL,
    created_at DATETIME(3) NOT NULL,
    KEY webhook_deliveries_due (endpoint_id, due_at),
    KEY webhook_deliveries_status (endpoint_id, status, id),
    KEY webhook_deliveries_created_at (created_at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
