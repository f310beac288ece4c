ALTER TABLE orders
    ADD KEY orders_product_live_id (product_id, live_user, id), ADD KEY orders_status (status, created_at);
