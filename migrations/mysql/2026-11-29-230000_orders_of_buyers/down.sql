ALTER TABLE order_lookup_gaps DROP COLUMN product_ids;
DELETE FROM order_lookup WHERE list < 0;
