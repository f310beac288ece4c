-- Orders of a product and a status, and of a status alone, by id: what finds them for the merchant. An index of `orders` would cost
-- every purchase; this is filled behind the sale's back. list: eight times the product's id, or 0 for all products, plus the number of
-- the status.
CREATE TABLE IF NOT EXISTS order_lookup (
    list BIGINT NOT NULL,
    order_id BINARY(16) NOT NULL,
    PRIMARY KEY (list, order_id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Where order_lookup may not say what `orders` does: one row for all orders that were written together, and for orders that changed.
-- Orders from first_order to last_order, as ids go; others may lie between them. orders: how many they are, about. changed: some of
-- them may stand in a list that is not theirs any more.
CREATE TABLE IF NOT EXISTS order_lookup_gaps (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    first_order BINARY(16) NOT NULL,
    last_order BINARY(16) NOT NULL,
    orders BIGINT NOT NULL,
    changed BOOLEAN NOT NULL,
    KEY order_lookup_gaps_last (last_order, first_order)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Whoever fills the lookup locks this row; one instance at a time.
CREATE TABLE IF NOT EXISTS order_lookup_turn (id INT NOT NULL PRIMARY KEY) ENGINE = InnoDB;
INSERT IGNORE INTO order_lookup_turn (id) VALUES (1);

-- All orders that there are.
INSERT INTO order_lookup_gaps (first_order, last_order, orders, changed)
    SELECT MIN(id), MAX(id), COUNT(*), FALSE FROM orders HAVING COUNT(*) > 0;
