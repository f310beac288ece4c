-- When the product's epoch began, if it is not its first: so every instance learns twice a second which gates are over, also one that
-- is cut off together with a Redis whose replica was promoted.
ALTER TABLE products ADD COLUMN gate_begun_at DATETIME(3) NULL, ADD INDEX products_by_gate_begun (gate_begun_at);
