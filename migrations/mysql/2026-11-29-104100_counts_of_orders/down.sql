ALTER TABLE products DROP COLUMN expired, DROP COLUMN cancelled, DROP COLUMN rejected, DROP COLUMN revenue_cents;
