-- Buyers within their sale: a transaction of orders then changes pages of that sale only, however many orders there were
-- before. What it costs is that a buyer's own orders are looked for sale by sale.
DROP INDEX orders_live;
CREATE UNIQUE INDEX orders_live ON orders (product_id, user_id, live_user);
