-- orders_live holds the id as well, as every index of InnoDB does. An order's id begins with its time, so orders of a
-- status can be found by age without an index that each new order has to be added to.
ALTER TABLE orders DROP KEY orders_product_live_id, DROP KEY orders_status;
