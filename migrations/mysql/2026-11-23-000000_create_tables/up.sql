-- Names are compared without case, so the lower-case form carries the unique index.
CREATE TABLE users (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    username VARCHAR(32) NOT NULL,
    username_key VARCHAR(32) NOT NULL,
    password_hash VARCHAR(72) NOT NULL,
    role VARCHAR(8) NOT NULL,
    created_at DATETIME(3) NOT NULL,
    UNIQUE KEY users_username_key (username_key)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- gate_fence = gate_epoch: the gate is rebuilt or being installed; gate_fence < gate_epoch: it is closed.
CREATE TABLE products (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(200) NOT NULL,
    description TEXT NOT NULL,
    price_cents BIGINT NOT NULL,
    stock BIGINT NOT NULL,
    sold BIGINT NOT NULL DEFAULT 0,
    starts_at DATETIME(3) NOT NULL,
    ends_at DATETIME(3) NULL,
    paused BOOLEAN NOT NULL DEFAULT FALSE,
    ver BIGINT NOT NULL DEFAULT 1,
    gate_epoch BIGINT NOT NULL DEFAULT 1,
    gate_fence BIGINT NOT NULL DEFAULT 1,
    gate_home VARCHAR(128) NOT NULL,
    created_at DATETIME(3) NOT NULL,
    CONSTRAINT products_sold CHECK (sold >= 0 AND sold <= stock),
    KEY products_starts_at (starts_at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- live_user is user_id while the order is live and NULL afterwards, so that only live orders exclude each other.
-- release_due is 1 until the gate has given the unit of a dead order back, then NULL.
-- user_id refers to no table: a shop may bring its own user directory.
CREATE TABLE orders (
    id BINARY(16) NOT NULL PRIMARY KEY,
    product_id BIGINT NOT NULL,
    user_id BIGINT NOT NULL,
    live_user BIGINT NULL,
    status VARCHAR(16) NOT NULL,
    reason VARCHAR(32) NULL,
    price_cents BIGINT NOT NULL,
    release_due TINYINT NULL,
    created_at DATETIME(3) NOT NULL,
    updated_at DATETIME(3) NOT NULL,
    UNIQUE KEY orders_live (product_id, live_user),
    KEY orders_release_due (release_due),
    KEY orders_product_live_id (product_id, live_user, id),
    KEY orders_user (user_id, id),
    KEY orders_status (status, created_at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The first answer to each Idempotency-Key. response is NULL until that answer was given.
CREATE TABLE idempotency_keys (
    user_id BIGINT NOT NULL,
    idempotency_key VARCHAR(255) NOT NULL,
    request_hash BINARY(32) NOT NULL,
    product_id BIGINT NOT NULL,
    response TEXT NULL,
    created_at DATETIME(3) NOT NULL,
    PRIMARY KEY (user_id, idempotency_key)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
