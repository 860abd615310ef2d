SELECT *
FROM runs
WHERE model = ?1 AND status IN ('failed', 'interrupted')
ORDER BY started_at DESC
LIMIT ?2
