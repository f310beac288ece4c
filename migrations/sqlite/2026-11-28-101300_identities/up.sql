-- The same as in migrations/mysql, which says why each column and index is there.
ALTER TABLE users ADD COLUMN token_generation INTEGER NOT NULL DEFAULT 0;

-- The sequence has a row once the first user is there.
INSERT INTO sqlite_sequence (name, seq) SELECT 'users', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'users');
UPDATE sqlite_sequence
    SET seq = MAX(seq, (SELECT COALESCE(MAX(user_id), 0) FROM orders WHERE user_id < 1099511627776)) WHERE name = 'users';

CREATE TABLE external_users (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    issuer BLOB NOT NULL,
    subject BLOB NOT NULL,
    tokens_valid_from INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX external_users_subject ON external_users (issuer, subject);
INSERT INTO sqlite_sequence (name, seq) VALUES ('external_users', 4503599627370495);

CREATE TABLE token_withdrawals (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    valid_from INTEGER NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX token_withdrawals_created_at ON token_withdrawals (created_at);
