DROP INDEX orders_dead;
DROP INDEX orders_of_sale;
DROP INDEX orders_live;
CREATE UNIQUE INDEX orders_live ON orders (product_id, live_user);
CREATE INDEX orders_user ON orders (user_id);
