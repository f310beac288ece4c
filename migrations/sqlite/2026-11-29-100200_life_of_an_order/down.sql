ALTER TABLE orders DROP COLUMN quantity;
ALTER TABLE orders DROP COLUMN paid_at;
DROP TABLE payment_deadlines;
DROP TABLE order_changes;
