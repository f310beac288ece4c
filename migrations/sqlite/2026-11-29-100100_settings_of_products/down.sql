ALTER TABLE products DROP COLUMN currency;
ALTER TABLE products DROP COLUMN payment_window_seconds;
ALTER TABLE products DROP COLUMN max_per_order;
ALTER TABLE products DROP COLUMN image_url;
ALTER TABLE products DROP COLUMN withheld;
ALTER TABLE products DROP COLUMN paid;
ALTER TABLE products DROP COLUMN sold_out_at;
