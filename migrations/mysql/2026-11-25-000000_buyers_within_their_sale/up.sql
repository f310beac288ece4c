-- Buyers within their sale: a transaction of orders then changes pages of that sale only, however many orders there were
-- before. What it costs is that a buyer's own orders are looked for sale by sale.
ALTER TABLE orders
    DROP KEY orders_live,
    DROP KEY orders_user,
    ADD UNIQUE KEY orders_live (product_id, user_id, live_user);
