-- The same as in migrations/mysql, which says why.
CREATE TABLE order_changes (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    order_id BLOB NOT NULL,
    from_status TEXT NOT NULL,
    to_status TEXT NOT NULL,
    changed_by TEXT NOT NULL,
    changed_by_user INTEGER,
    reason TEXT,
    changed_at TEXT NOT NULL
) STRICT;
CREATE INDEX order_changes_order ON order_changes (order_id, id);

CREATE TABLE payment_deadlines (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    first_order BLOB NOT NULL,
    last_order BLOB NOT NULL,
    due_at TEXT NOT NULL
) STRICT;
CREATE INDEX payment_deadlines_due ON payment_deadlines (due_at);

UPDATE products SET paid = (SELECT COUNT(*) FROM orders WHERE orders.product_id = products.id AND orders.status = 'paid');

ALTER TABLE orders ADD COLUMN quantity INTEGER NOT NULL DEFAULT 1;
ALTER TABLE orders ADD COLUMN paid_at TEXT;
