-- One pass over all orders, however many products there are.
UPDATE products
    JOIN (SELECT product_id,
                 SUM(CASE WHEN status = 'paid' THEN quantity ELSE 0 END) AS paid,
                 SUM(CASE WHEN status = 'expired' THEN quantity ELSE 0 END) AS expired,
                 SUM(CASE WHEN status = 'cancelled' THEN quantity ELSE 0 END) AS cancelled,
                 SUM(CASE WHEN status = 'rejected' THEN quantity ELSE 0 END) AS rejected,
                 SUM(CASE WHEN status = 'paid' THEN price_cents * quantity ELSE 0 END) AS revenue_cents
          FROM orders GROUP BY product_id) AS counted ON counted.product_id = products.id
    SET products.paid = counted.paid, products.expired = counted.expired, products.cancelled = counted.cancelled,
        products.rejected = counted.rejected, products.revenue_cents = counted.revenue_cents;
