-- Of providers that give each payment a checkout of its own: its id there, and where the buyer pays. ask_at: when to ask the provider of
-- this payment again, to end a checkout or for a refund; NULL: there is nothing to ask. spent_tries: answers of the provider that must
-- not be repeated, part of what the next request is known by there. asked: questions in a row that settled nothing, for the pause.
ALTER TABLE payments
    ADD COLUMN redirect_url TEXT NULL,
    ADD COLUMN checkout VARCHAR(255) NULL,
    ADD COLUMN spent_tries BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN ask_at DATETIME(3) NULL,
    ADD COLUMN asked BIGINT NOT NULL DEFAULT 0,
    ADD KEY payments_ask_at (provider, ask_at);
