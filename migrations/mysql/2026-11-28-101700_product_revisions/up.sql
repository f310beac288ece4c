-- What a product was called and cost, for each state it has had: `ver` of products is the number of the newest. An order
-- names the one of its click, so a change of the product changes no order.
-- Revision 0 is for orders of before, which name none: what the product was called when revisions began.
CREATE TABLE IF NOT EXISTS product_revisions (
    product_id BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    name VARCHAR(200) NOT NULL,
    price_cents BIGINT NOT NULL,
    created_at DATETIME(3) NOT NULL,
    PRIMARY KEY (product_id, revision)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT IGNORE INTO product_revisions (product_id, revision, name, price_cents, created_at)
    SELECT id, 0, name, price_cents, UTC_TIMESTAMP(3) FROM products;
INSERT IGNORE INTO product_revisions (product_id, revision, name, price_cents, created_at)
    SELECT id, ver, name, price_cents, UTC_TIMESTAMP(3) FROM products;
-- At the end of the row: the server then changes the table's description only, however many orders there are.
ALTER TABLE orders ADD COLUMN revision BIGINT NULL;
