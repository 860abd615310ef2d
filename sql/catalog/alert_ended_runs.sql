-- ?1: the newest event that was looked at, ?2: how many. A run that did not even begin has an event and no row.
SELECT events.id AS event, events.at AS at, events.subject AS subject, events.message AS message,
       json_extract(events.details, '$.run_id') AS id, json_extract(events.details, '$.hint') AS hint, runs.*
FROM events
LEFT JOIN runs ON runs.run_id = json_extract(events.details, '$.run_id')
WHERE events.id > ?1 AND events.kind = 'model'
  AND events.verb IN ('run_finished', 'run_held', 'run_failed', 'run_interrupted')
ORDER BY events.id
LIMIT ?2;
