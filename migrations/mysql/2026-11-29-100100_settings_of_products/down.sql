ALTER TABLE products
    DROP COLUMN currency,
    DROP COLUMN payment_window_seconds,
    DROP COLUMN max_per_order,
    DROP COLUMN image_url,
    DROP COLUMN withheld,
    DROP COLUMN paid,
    DROP COLUMN sold_out_at;
