ALTER TABLE products DROP COLUMN max_per_address;
