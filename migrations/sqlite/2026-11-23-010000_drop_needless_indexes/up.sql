-- An order's id begins with its time, so orders of a status can be found by age without an index that each new order
-- has to be added to.
DROP INDEX orders_status;
