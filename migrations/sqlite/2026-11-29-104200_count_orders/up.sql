-- The same as in migrations/mysql, which says why.
UPDATE products
    SET paid = counted.paid, expired = counted.expired, cancelled = counted.cancelled, rejected = counted.rejected,
        revenue_cents = counted.revenue_cents
    FROM (SELECT product_id,
                 SUM(CASE WHEN status = 'paid' THEN quantity ELSE 0 END) AS paid,
                 SUM(CASE WHEN status = 'expired' THEN quantity ELSE 0 END) AS expired,
                 SUM(CASE WHEN status = 'cancelled' THEN quantity ELSE 0 END) AS cancelled,
                 SUM(CASE WHEN status = 'rejected' THEN quantity ELSE 0 END) AS rejected,
                 SUM(CASE WHEN status = 'paid' THEN price_cents * quantity ELSE 0 END) AS revenue_cents
          FROM orders GROUP BY product_id) AS counted
    WHERE counted.product_id = products.id;
