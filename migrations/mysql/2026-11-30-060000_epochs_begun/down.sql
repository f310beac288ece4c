ALTER TABLE products DROP INDEX products_by_gate_begun, DROP COLUMN gate_begun_at;
