ALTER TABLE product_revisions DROP COLUMN currency, DROP COLUMN payment_window_seconds;
