ALTER TABLE products DROP COLUMN draft;
