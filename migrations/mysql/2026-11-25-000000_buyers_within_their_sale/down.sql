ALTER TABLE orders
    DROP KEY orders_live,
    ADD UNIQUE KEY orders_live (product_id, live_user),
    ADD KEY orders_user (user_id, id);
