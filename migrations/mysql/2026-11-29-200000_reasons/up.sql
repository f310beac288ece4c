-- reason: why the administrator did it, if they said so. No statement of a version before names this column, so both run beside each other.
-- The index finds what was done to one object.
ALTER TABLE admin_log
    ADD COLUMN reason VARCHAR(255) NULL,
    ADD KEY admin_log_object (object, id);
