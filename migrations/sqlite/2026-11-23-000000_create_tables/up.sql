-- The same tables as in migrations/mysql, which says why each column and index is there.
CREATE TABLE users (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    username TEXT NOT NULL,
    username_key TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX users_username_key ON users (username_key);

CREATE TABLE products (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    price_cents INTEGER NOT NULL,
    stock INTEGER NOT NULL,
    sold INTEGER NOT NULL DEFAULT 0,
    starts_at TEXT NOT NULL,
    ends_at TEXT,
    paused INTEGER NOT NULL DEFAULT 0,
    ver INTEGER NOT NULL DEFAULT 1,
    gate_epoch INTEGER NOT NULL DEFAULT 1,
    gate_fence INTEGER NOT NULL DEFAULT 1,
    gate_home TEXT NOT NULL,
    created_at TEXT NOT NULL,
    CONSTRAINT products_sold CHECK (sold >= 0 AND sold <= stock)
) STRICT;
CREATE INDEX products_starts_at ON products (starts_at);

CREATE TABLE orders (
    id BLOB NOT NULL PRIMARY KEY,
    product_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    live_user INTEGER,
    status TEXT NOT NULL,
    reason TEXT,
    price_cents INTEGER NOT NULL,
    release_due INTEGER,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX orders_live ON orders (product_id, live_user);
CREATE INDEX orders_release_due ON orders (release_due) WHERE release_due IS NOT NULL;
CREATE INDEX orders_user ON orders (user_id, id);
CREATE INDEX orders_status ON orders (status, created_at);

CREATE TABLE idempotency_keys (
    user_id INTEGER NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_hash BLOB NOT NULL,
    product_id INTEGER NOT NULL,
    response TEXT,
    created_at TEXT NOT NULL,
    PRIMARY KEY (user_id, idempotency_key)
) STRICT;
