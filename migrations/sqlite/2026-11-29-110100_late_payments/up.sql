-- The late payment that revived an order; NULL: it is in its first life.
ALTER TABLE orders ADD COLUMN revived_by BLOB NULL;
