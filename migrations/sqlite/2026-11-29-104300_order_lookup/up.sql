-- The same as in migrations/mysql, which says why. A file has one writer, so nobody needs a turn.
CREATE TABLE order_lookup (
    list INTEGER NOT NULL,
    order_id BLOB NOT NULL,
    PRIMARY KEY (list, order_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE order_lookup_gaps (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    first_order BLOB NOT NULL,
    last_order BLOB NOT NULL,
    orders INTEGER NOT NULL,
    changed INTEGER NOT NULL
) STRICT;
CREATE INDEX order_lookup_gaps_last ON order_lookup_gaps (last_order, first_order);

INSERT INTO order_lookup_gaps (first_order, last_order, orders, changed)
    SELECT MIN(id), MAX(id), COUNT(*), 0 FROM orders HAVING COUNT(*) > 0;
