-- order_lookup also has a list for each buyer, with all their orders: its number is that of the buyer, below zero. The orders that
-- there are get into it as into the others: this gap covers them all. First, so that it may be done twice.
INSERT INTO order_lookup_gaps (first_order, last_order, orders, changed)
    SELECT MIN(id), MAX(id), COUNT(*), 0 FROM orders HAVING COUNT(*) > 0;
-- product_ids: whose orders a gap has that may not be in their buyers' lists, as a JSON list; NULL: of any product. A buyer's orders are
-- looked for there by the index of buyers, which begins with the product.
ALTER TABLE order_lookup_gaps ADD COLUMN product_ids VARCHAR(255) NULL;
