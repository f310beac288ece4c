-- The same as in migrations/mysql, which says why.
ALTER TABLE product_revisions ADD COLUMN currency TEXT;
ALTER TABLE product_revisions ADD COLUMN payment_window_seconds INTEGER;
