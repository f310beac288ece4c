-- Nobody but administrators sees it; paused until it is published.
ALTER TABLE products ADD COLUMN draft BOOLEAN NOT NULL DEFAULT FALSE;
