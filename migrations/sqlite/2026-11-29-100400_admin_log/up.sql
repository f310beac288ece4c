-- The same as in migrations/mysql, which says why.
CREATE TABLE admin_log (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    user_name TEXT,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    changes TEXT NOT NULL,
    changed_at TEXT NOT NULL
) STRICT;
