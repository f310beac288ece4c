-- Every change of an order, but not its beginning, which is the order itself. changed_by: buyer, admin, expiry, provider or
-- system; changed_by_user: which buyer or administrator.
CREATE TABLE IF NOT EXISTS order_changes (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    order_id BINARY(16) NOT NULL,
    from_status VARCHAR(16) NOT NULL,
    to_status VARCHAR(16) NOT NULL,
    changed_by VARCHAR(16) NOT NULL,
    changed_by_user BIGINT NULL,
    reason VARCHAR(255) NULL,
    changed_at DATETIME(3) NOT NULL,
    KEY order_changes_order (order_id, id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- When to look for orders that were not paid in time: one row for all that were written together, for an index of deadlines
-- would cost every order. Orders from first_order to last_order, as ids go, may be due at due_at; others may lie between them.
CREATE TABLE IF NOT EXISTS payment_deadlines (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    first_order BINARY(16) NOT NULL,
    last_order BINARY(16) NOT NULL,
    due_at DATETIME(3) NOT NULL,
    KEY payment_deadlines_due (due_at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Until now a shop wrote `paid` itself.
UPDATE products SET paid = (SELECT COUNT(*) FROM orders WHERE orders.product_id = products.id AND orders.status = 'paid');

-- At the end of the row: the server then changes the table's description only, however many orders there are.
ALTER TABLE orders
    ADD COLUMN quantity BIGINT NOT NULL DEFAULT 1,
    ADD COLUMN paid_at DATETIME(3) NULL;
