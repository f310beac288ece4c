-- The same as in migrations/mysql, which says why.
ALTER TABLE products ADD COLUMN max_per_address INTEGER;
