-- The same as in migrations/mysql, which says why.
ALTER TABLE products ADD COLUMN currency TEXT;
ALTER TABLE products ADD COLUMN payment_window_seconds INTEGER;
ALTER TABLE products ADD COLUMN max_per_order INTEGER NOT NULL DEFAULT 1;
ALTER TABLE products ADD COLUMN image_url TEXT;
ALTER TABLE products ADD COLUMN withheld INTEGER NOT NULL DEFAULT 0;
ALTER TABLE products ADD COLUMN paid INTEGER NOT NULL DEFAULT 0;
ALTER TABLE products ADD COLUMN sold_out_at TEXT;
