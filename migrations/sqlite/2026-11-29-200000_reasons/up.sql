-- The same as in migrations/mysql, which says why.
ALTER TABLE admin_log ADD COLUMN reason TEXT;
CREATE INDEX admin_log_object ON admin_log (object, id);
