-- When each model is due, and the work that waits or is under way, so that a restarted service goes on where it was.

CREATE TABLE schedules (
    model           TEXT PRIMARY KEY,
    -- the schedule that next_due_at was reckoned with; NULL: the model has none, or is not active
    schedule        TEXT,
    paused          INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    -- the due time that was queued last, and the next one
    last_due_at     INTEGER,
    next_due_at     INTEGER,
    -- how long after its due time the model is queued, in microseconds
    jitter          INTEGER NOT NULL DEFAULT 0,
    -- when next_due_at was reckoned: later than now when the clock was set back
    reckoned_at     INTEGER NOT NULL,
    last_started_at INTEGER,
    -- the due time whose lateness was told
    late_for        INTEGER
) STRICT;

-- A model is here at most once: it waits, or it runs.
CREATE TABLE work (
    model     TEXT PRIMARY KEY,
    -- of the run that is to be, or is
    run_id    TEXT NOT NULL UNIQUE,
    -- first in, first out
    place     INTEGER NOT NULL,
    cause     TEXT NOT NULL CHECK (cause IN ('schedule', 'manual', 'retry')),
    actor     TEXT NOT NULL,
    due_at    INTEGER,
    queued_at INTEGER NOT NULL,
    -- NULL: it waits
    taken_at  INTEGER,
    -- how many processes took it
    attempts  INTEGER NOT NULL DEFAULT 0,
    -- somebody asked for its end
    stopped   INTEGER NOT NULL DEFAULT 0 CHECK (stopped IN (0, 1))
) STRICT;
