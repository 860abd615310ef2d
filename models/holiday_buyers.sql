-- Bought an e-bike in November or December of last year (the year before the latest purchase): the dearest one.
WITH sales AS (
    SELECT
        purchases.purchase_id,
        purchases.customer_id,
        products.brand,
        products.model,
        products.category,
        try_cast(purchases.amount AS decimal(10, 2))                AS amount,
        try_cast(purchases.purchased_at AS timestamp)               AS purchased_at
    FROM purchases
    JOIN products ON products.product_id = purchases.product_id
),
last_year AS (
    SELECT date_part('year', max(purchased_at)) - 1 AS year FROM sales
),
totals AS (
    SELECT customer_id, max(purchased_at) AS last_purchase_at, sum(amount) AS lifetime_value
    FROM sales
    GROUP BY customer_id
),
holiday_ebikes AS (
    SELECT
        sales.customer_id,
        sales.brand,
        sales.model,
        row_number() OVER (
            PARTITION BY sales.customer_id ORDER BY sales.amount DESC NULLS LAST, sales.purchase_id
        ) AS place
    FROM sales
    JOIN last_year ON date_part('year', sales.purchased_at) = last_year.year
    WHERE sales.category = 'e-bike'
      AND date_part('month', sales.purchased_at) IN (11, 12)
)
SELECT
    customers.email,
    holiday_ebikes.brand,
    holiday_ebikes.model,
    totals.last_purchase_at,
    cast(totals.lifetime_value AS decimal(12, 2))                   AS lifetime_value
FROM holiday_ebikes
JOIN customers ON customers.customer_id = holiday_ebikes.customer_id
JOIN totals ON totals.customer_id = holiday_ebikes.customer_id
WHERE holiday_ebikes.place = 1
