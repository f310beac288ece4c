ALTER TABLE admin_log
    DROP KEY admin_log_object,
    DROP COLUMN reason;
