-- ?1: model, ?2 and ?3: start and id of the run, ?4: how many. Newest first.
SELECT *
FROM runs
WHERE model = ?1 AND kind = 'sync' AND status IN ('published', 'unchanged', 'held')
  AND (started_at, run_id) < (?2, ?3)
ORDER BY started_at DESC, run_id DESC
LIMIT ?4;
