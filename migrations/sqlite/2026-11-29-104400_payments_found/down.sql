DROP INDEX payments_reference;
DROP INDEX payments_status;
