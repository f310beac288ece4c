-- Units that buyers of one network address may take in all; NULL: as many as there are.
ALTER TABLE products ADD COLUMN max_per_address BIGINT NULL;
