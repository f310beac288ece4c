-- The same as in migrations/mysql, which says why.
ALTER TABLE payments ADD COLUMN redirect_url TEXT;
ALTER TABLE payments ADD COLUMN checkout TEXT;
ALTER TABLE payments ADD COLUMN spent_tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE payments ADD COLUMN ask_at TEXT;
ALTER TABLE payments ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
CREATE INDEX payments_ask_at ON payments (provider, ask_at) WHERE ask_at IS NOT NULL;
