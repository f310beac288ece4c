-- withheld: units that are not offered any more, of those that the sale was given. `stock` itself never comes down, so no
-- purchase on its way can fail on it.
-- paid: units of paid orders, of those that are sold; the others are held until they are paid or come back.
-- sold_out_at: when the last unit was sold; NULL while there are some.
ALTER TABLE products
    ADD COLUMN currency CHAR(3) NULL,
    ADD COLUMN payment_window_seconds BIGINT NULL,
    ADD COLUMN max_per_order BIGINT NOT NULL DEFAULT 1,
    ADD COLUMN image_url VARCHAR(2048) NULL,
    ADD COLUMN withheld BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN paid BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN sold_out_at DATETIME(3) NULL;
