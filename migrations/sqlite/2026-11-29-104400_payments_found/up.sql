-- The same as in migrations/mysql, which says why.
CREATE INDEX payments_reference ON payments (reference, order_id);
CREATE INDEX payments_status ON payments (status, order_id);
