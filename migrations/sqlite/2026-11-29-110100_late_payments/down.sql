ALTER TABLE orders DROP COLUMN revived_by;
