-- One index of buyers instead of two: it keeps live orders of a buyer and a product apart (I4) and finds a buyer's orders.
-- Those of a sale are found in the order of their ids, so a new one comes last, and the few that are due for release apart.
ALTER TABLE orders
    DROP KEY orders_live,
    DROP KEY orders_user,
    DROP KEY orders_release_due,
    ADD UNIQUE KEY orders_live (user_id, product_id, live_user),
    ADD KEY orders_of_sale (product_id, release_due);
