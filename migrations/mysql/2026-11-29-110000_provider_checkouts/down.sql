ALTER TABLE payments
    DROP KEY payments_ask_at,
    DROP COLUMN asked,
    DROP COLUMN ask_at,
    DROP COLUMN spent_tries,
    DROP COLUMN checkout,
    DROP COLUMN redirect_url;
