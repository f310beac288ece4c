DROP TABLE token_withdrawals;
DROP TABLE external_users;
ALTER TABLE users DROP COLUMN token_generation;
