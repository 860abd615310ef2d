-- Customers who did not log in last month: in the 30 days up to the latest session that the shop has seen.
WITH latest AS (
    SELECT max(started_at) AS seen_at FROM sessions
)
SELECT
    customers.email,
    customers.first_name,
    customers.country,
    customers.last_login_at,
    cast(date_part('epoch', latest.seen_at - customers.last_login_at) / 86400 AS bigint) AS days_since_login
FROM customers
CROSS JOIN latest
WHERE customers.marketing_opt_in
  AND customers.last_login_at < latest.seen_at - INTERVAL '30 days'
