-- The same as in migrations/mysql, which says why.
CREATE TABLE product_revisions (
    product_id INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    name TEXT NOT NULL,
    price_cents INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (product_id, revision)
) STRICT, WITHOUT ROWID;
INSERT INTO product_revisions (product_id, revision, name, price_cents, created_at)
    SELECT id, 0, name, price_cents, strftime('%Y-%m-%d %H:%M:%f', 'now') FROM products;
INSERT INTO product_revisions (product_id, revision, name, price_cents, created_at)
    SELECT id, ver, name, price_cents, strftime('%Y-%m-%d %H:%M:%f', 'now') FROM products;
ALTER TABLE orders ADD COLUMN revision INTEGER;
