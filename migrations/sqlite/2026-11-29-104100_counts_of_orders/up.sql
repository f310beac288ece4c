-- The same as in migrations/mysql, which says why.
ALTER TABLE products ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE products ADD COLUMN cancelled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE products ADD COLUMN rejected INTEGER NOT NULL DEFAULT 0;
ALTER TABLE products ADD COLUMN revenue_cents INTEGER NOT NULL DEFAULT 0;
