-- ?1: the newest event that was looked at, ?2: how many.
SELECT runs.*, events.id AS event
FROM events
JOIN runs ON runs.run_id = json_extract(events.details, '$.run_id')
WHERE events.id > ?1 AND events.kind = 'model'
  AND events.verb IN ('run_finished', 'run_held', 'run_failed', 'run_interrupted')
ORDER BY events.id
LIMIT ?2;
