ALTER TABLE products DROP COLUMN expired;
ALTER TABLE products DROP COLUMN cancelled;
ALTER TABLE products DROP COLUMN rejected;
ALTER TABLE products DROP COLUMN revenue_cents;
