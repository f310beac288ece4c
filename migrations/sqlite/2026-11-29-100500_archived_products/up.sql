-- The same as in migrations/mysql, which says why.
ALTER TABLE products ADD COLUMN archived_at TEXT;
