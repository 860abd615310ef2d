-- The hundred customers who spent most, with their last purchase as the till exported it.
-- Amount and time are text there. The contract in vip_service.yml turns them into a decimal and a timestamp; a row
-- where that fails (`n/a`) is quarantined, and the person keeps what was known before.
WITH spending AS (
    SELECT
        customer_id,
        sum(try_cast(amount AS decimal(10, 2)))                     AS spent,
        max(purchase_id)                                            AS last_purchase_id
    FROM purchases
    GROUP BY customer_id
),
ranked AS (
    SELECT *, row_number() OVER (ORDER BY spent DESC NULLS LAST, customer_id) AS place
    FROM spending
)
SELECT
    customers.email,
    ranked.place                                                    AS spending_place,
    products.brand || ' ' || products.model                         AS last_product,
    purchases.amount                                                AS last_amount,
    purchases.purchased_at                                          AS last_purchase_at
FROM ranked
JOIN purchases ON purchases.purchase_id = ranked.last_purchase_id
JOIN products ON products.product_id = purchases.product_id
JOIN customers ON customers.customer_id = ranked.customer_id
WHERE ranked.place <= 100
