-- Gone from the lists, and not on sale any more; its orders stay.
ALTER TABLE products ADD COLUMN archived_at DATETIME(3) NULL;
