-- The late payment that revived an order; NULL: it is in its first life. At the end of the row, as before.
ALTER TABLE orders ADD COLUMN revived_by BINARY(16) NULL;

-- What an instance knows of the protocol. One that says nothing is of a version before: 1. From 2 on it knows late payments.
ALTER TABLE instances ADD COLUMN protocol BIGINT NOT NULL DEFAULT 1;
