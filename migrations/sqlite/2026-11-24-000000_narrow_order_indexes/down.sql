CREATE TABLE wide_orders (
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
INSERT INTO wide_orders SELECT id, product_id, user_id, live_user, status, reason, price_cents, release_due, created_at, updated_at
    FROM orders ORDER BY id;
DROP TABLE orders;
ALTER TABLE wide_orders RENAME TO orders;
CREATE UNIQUE INDEX orders_live ON orders (product_id, live_user);
CREATE INDEX orders_release_due ON orders (release_due) WHERE release_due IS NOT NULL;
CREATE INDEX orders_user ON orders (user_id, id);
