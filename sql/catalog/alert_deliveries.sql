-- ?1, ?2: only those made before that time and id (null: all), ?3: how many.
SELECT *
FROM alert_deliveries
WHERE ?1 IS NULL OR (created_at, delivery_id) < (?1, ?2)
ORDER BY created_at DESC, delivery_id DESC
LIMIT ?3;
