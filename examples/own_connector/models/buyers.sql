SELECT c.email, c.name, count(*) AS orders, max(o.day) AS last_day
FROM customers c JOIN orders o ON o.customer_id = c.id
GROUP BY c.email, c.name
