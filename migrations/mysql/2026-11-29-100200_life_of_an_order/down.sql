ALTER TABLE orders DROP COLUMN quantity, DROP COLUMN paid_at;
DROP TABLE payment_deadlines;
DROP TABLE order_changes;
