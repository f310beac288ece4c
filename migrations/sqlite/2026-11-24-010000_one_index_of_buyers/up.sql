-- Buyers come in no order, so an order goes to a page of its own in each index that begins with the buyer, or in which
-- buyers follow the product. One such index is enough: it keeps live orders of a buyer and a product apart (I4) and finds
-- a buyer's orders. Those of a sale are found by row number, where a new one comes last.
DROP INDEX orders_live;
DROP INDEX orders_user;
CREATE UNIQUE INDEX orders_live ON orders (user_id, product_id, live_user);
CREATE INDEX orders_of_sale ON orders (product_id) WHERE live_user IS NOT NULL;
CREATE INDEX orders_dead ON orders (product_id) WHERE live_user IS NULL;
