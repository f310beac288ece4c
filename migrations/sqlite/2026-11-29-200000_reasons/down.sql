DROP INDEX admin_log_object;
ALTER TABLE admin_log DROP COLUMN reason;
