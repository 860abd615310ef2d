INSERT INTO work (model, run_id, place, cause, actor, due_at, queued_at, taken_at, attempts, stopped)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
ON CONFLICT (model) DO UPDATE SET
    run_id = excluded.run_id,
    place = excluded.place,
    cause = excluded.cause,
    actor = excluded.actor,
    due_at = excluded.due_at,
    queued_at = excluded.queued_at,
    taken_at = excluded.taken_at,
    attempts = excluded.attempts,
    stopped = excluded.stopped
