-- Units of dead orders, and what the paid ones cost, as `sold` and `paid` count the live ones: whoever changes orders changes these in
-- the same statement. So a sale's summary is one row, however many orders there are. The next migration counts what there is; by
-- itself, for this server commits each change of a table at once.
ALTER TABLE products
    ADD COLUMN expired BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN cancelled BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN rejected BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN revenue_cents BIGINT NOT NULL DEFAULT 0;
