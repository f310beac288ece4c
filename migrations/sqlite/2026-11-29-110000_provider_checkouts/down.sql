DROP INDEX payments_ask_at;
ALTER TABLE payments DROP COLUMN asked;
ALTER TABLE payments DROP COLUMN ask_at;
ALTER TABLE payments DROP COLUMN spent_tries;
ALTER TABLE payments DROP COLUMN checkout;
ALTER TABLE payments DROP COLUMN redirect_url;
