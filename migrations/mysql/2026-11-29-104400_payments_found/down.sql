ALTER TABLE payments DROP KEY payments_reference, DROP KEY payments_status;
