-- ?1: now, ?2: how many. Of an incident and channel only the oldest that is owed.
SELECT d.*
FROM alert_deliveries AS d
WHERE d.status = 'owed' AND d.due_at <= ?1
  AND NOT EXISTS (
      SELECT 1
      FROM alert_deliveries AS earlier
      WHERE earlier.incident = d.incident AND earlier.channel = d.channel AND earlier.status = 'owed'
        AND (earlier.created_at, earlier.delivery_id) < (d.created_at, d.delivery_id)
  )
ORDER BY d.due_at, d.delivery_id
LIMIT ?2;
