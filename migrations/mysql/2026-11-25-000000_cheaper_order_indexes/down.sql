ALTER TABLE orders
    DROP KEY orders_live,
    DROP KEY orders_of_sale,
    ADD UNIQUE KEY orders_live (product_id, live_user),
    ADD KEY orders_user (user_id, id),
    ADD KEY orders_release_due (release_due);
