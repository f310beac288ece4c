ALTER TABLE orders DROP COLUMN revision;
DROP TABLE product_revisions;
