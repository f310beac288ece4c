ALTER TABLE product_revisions DROP COLUMN currency;
ALTER TABLE product_revisions DROP COLUMN payment_window_seconds;
