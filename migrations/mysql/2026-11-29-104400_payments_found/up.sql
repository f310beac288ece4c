-- A payment is found by its reference, whoever else has the same, the newest order first; and those whose money is due back.
ALTER TABLE payments ADD KEY payments_reference (reference, order_id), ADD KEY payments_status (status, order_id);
