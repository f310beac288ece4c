DROP INDEX orders_live;
CREATE UNIQUE INDEX orders_live ON orders (user_id, product_id, live_user);
