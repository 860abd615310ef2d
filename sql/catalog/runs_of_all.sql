SELECT *
FROM runs
WHERE (?1 IS NULL OR status = ?1)
  AND (started_at, run_id) < (?2, ?3)
ORDER BY started_at DESC, run_id DESC
LIMIT ?4
