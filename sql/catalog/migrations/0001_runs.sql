-- What ran, what it published, and which removals wait for a person.

CREATE TABLE runs (
    run_id      TEXT PRIMARY KEY,
    model       TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('sync', 'approve')),
    status      TEXT NOT NULL CHECK (status IN ('running', 'published', 'unchanged', 'held', 'failed', 'cancelled', 'interrupted')),
    -- microseconds since 1970 UTC, as every time here
    started_at  INTEGER NOT NULL,
    finished_at INTEGER,
    -- the run's report as JSON
    report      TEXT
) STRICT;

CREATE INDEX runs_by_model ON runs (model, started_at);

-- A row makes one commit of a record store, and what follows from it, visible to readers.
CREATE TABLE publications (
    seq                INTEGER PRIMARY KEY,
    run_id             TEXT NOT NULL,
    model              TEXT NOT NULL,
    published_at       INTEGER NOT NULL,
    records_version    INTEGER NOT NULL,
    identities_version INTEGER,
    changes_version    INTEGER,
    UNIQUE (model, records_version)
) STRICT;

CREATE TABLE holds (
    run_id   TEXT PRIMARY KEY,
    model    TEXT NOT NULL,
    status   TEXT NOT NULL CHECK (status IN ('waiting', 'approved', 'rejected', 'superseded')),
    -- the hold's record: how many rows, and the files that list their keys, as JSON
    hold     TEXT NOT NULL,
    held_at  INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;

CREATE UNIQUE INDEX one_waiting_hold_a_model ON holds (model) WHERE status = 'waiting';
