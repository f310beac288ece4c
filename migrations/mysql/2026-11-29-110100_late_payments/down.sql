ALTER TABLE orders DROP COLUMN revived_by;
ALTER TABLE instances DROP COLUMN protocol;
