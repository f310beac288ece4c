DROP TABLE idempotency_keys;
DROP TABLE orders;
DROP TABLE products;
DROP TABLE users;
