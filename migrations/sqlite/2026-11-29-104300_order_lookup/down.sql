DROP TABLE order_lookup;
DROP TABLE order_lookup_gaps;
