INSERT INTO schedules (model, schedule, paused, last_due_at, next_due_at, jitter, reckoned_at, last_started_at, late_for)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (model) DO UPDATE SET
    schedule = excluded.schedule,
    paused = excluded.paused,
    last_due_at = excluded.last_due_at,
    next_due_at = excluded.next_due_at,
    jitter = excluded.jitter,
    reckoned_at = excluded.reckoned_at,
    last_started_at = excluded.last_started_at,
    late_for = excluded.late_for
