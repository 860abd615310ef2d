-- Profiles that are handed in: uploads, and events that were collected and wait to become part of one.

CREATE TABLE uploads (
    upload_id       TEXT PRIMARY KEY,
    stream          TEXT NOT NULL,
    source          TEXT NOT NULL CHECK (source IN ('upload', 'collect')),
    status          TEXT NOT NULL CHECK (status IN ('running', 'published', 'unchanged', 'failed', 'interrupted')),
    -- what makes a repetition recognizable; none for a batch of collected events
    idempotency_key TEXT,
    -- SHA-256 of the body, decompressed, in hexadecimal
    content_hash    TEXT,
    started_at      INTEGER NOT NULL,
    finished_at     INTEGER,
    -- the upload's report as JSON
    report          TEXT NOT NULL
) STRICT;

-- a key that failed may be tried again
CREATE UNIQUE INDEX one_upload_a_key ON uploads (stream, idempotency_key) WHERE status IN ('running', 'published', 'unchanged');
CREATE INDEX uploads_by_stream ON uploads (stream, status);

-- Events that were accepted and are in no commit yet. A row leaves in the transaction that makes its commit visible.
CREATE TABLE collected (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    stream      TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    -- one JSON object, in one line
    event       TEXT NOT NULL
) STRICT;

CREATE INDEX collected_by_stream ON collected (stream, id);
