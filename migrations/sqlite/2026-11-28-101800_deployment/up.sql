-- Nothing to change: a data folder has one process and no other stores.
SELECT 1;
