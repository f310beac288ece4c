-- The same as in migrations/mysql, which says why.
INSERT INTO order_lookup_gaps (first_order, last_order, orders, changed)
    SELECT MIN(id), MAX(id), COUNT(*), 0 FROM orders HAVING COUNT(*) > 0;
ALTER TABLE order_lookup_gaps ADD COLUMN product_ids TEXT;
