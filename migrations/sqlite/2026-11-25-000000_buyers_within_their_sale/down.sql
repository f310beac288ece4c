DROP INDEX orders_live;
CREATE UNIQUE INDEX orders_live ON orders (user_id, product_id, live_user);
CREATE INDEX orders_of_sale ON orders (product_id) WHERE live_user IS NOT NULL;
