SELECT
    c.email,
    c.first_name,
    c.country,
    COUNT(*) AS orders,
    SUM(o.amount) AS lifetime_value,
    MAX(o.ordered_on) AS last_order_on
FROM customers AS c
JOIN orders AS o ON o.customer_id = c.customer_id
GROUP BY c.email, c.first_name, c.country
HAVING SUM(o.amount) >= 100
