SELECT *
FROM runs
WHERE model = ?1
  AND (?2 IS NULL OR status = ?2)
  AND (started_at, run_id) < (?3, ?4)
ORDER BY started_at DESC, run_id DESC
LIMIT ?5
