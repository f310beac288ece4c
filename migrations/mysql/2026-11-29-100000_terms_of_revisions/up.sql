-- What binds at the click beside the price. currency NULL: from before currencies, the shop's own (`shop.currency`).
-- payment_window_seconds NULL: an order of this revision has no deadline.
ALTER TABLE product_revisions
    ADD COLUMN currency CHAR(3) NULL,
    ADD COLUMN payment_window_seconds BIGINT NULL;
