-- The same as in migrations/mysql, which says why.
ALTER TABLE products ADD COLUMN draft INTEGER NOT NULL DEFAULT 0;
