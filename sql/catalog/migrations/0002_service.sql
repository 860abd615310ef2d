-- What the service keeps: definitions made through the API, sealed credentials, the audit trail, repeated requests.

-- A connection or model that was made through the API. Files of the same name win.
CREATE TABLE definitions (
    kind       TEXT NOT NULL CHECK (kind IN ('connection', 'model')),
    -- the connection's name, the model's slug
    id         TEXT NOT NULL,
    -- as in the files: a connection's entry under `connections:`, a model's `.yml`; JSON, which is YAML too
    definition TEXT NOT NULL,
    -- a model's SQL
    sql        TEXT,
    -- for people; a model's name is in its definition
    label      TEXT,
    description TEXT,
    -- ids of the authorizations that a connection's secrets come from, as a JSON list
    auth_ids   TEXT NOT NULL DEFAULT '[]',
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    -- counts up with every change: the ETag
    revision   INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (kind, id)
) STRICT;

CREATE TABLE authorizations (
    id          TEXT PRIMARY KEY,
    -- the provider whose secrets it holds
    provider    TEXT NOT NULL,
    label       TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    -- which of the provider's parameters it holds, as a JSON list; their values are in `sealed` only
    parameters  TEXT NOT NULL,
    -- the key that sealed it
    key_id      TEXT NOT NULL,
    -- nonce, ciphertext and tag of the values as JSON
    sealed      BLOB NOT NULL,
    created_by  TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_by  TEXT NOT NULL,
    updated_at  INTEGER NOT NULL,
    revision    INTEGER NOT NULL DEFAULT 1
) STRICT;

-- Who did what, when: never changed, only trimmed by age.
CREATE TABLE events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    -- 'user:ada@example.com', 'token:ci', 'scheduler', 'cli', 'system'
    actor   TEXT NOT NULL,
    kind    TEXT NOT NULL,
    subject TEXT NOT NULL,
    verb    TEXT NOT NULL,
    message TEXT NOT NULL,
    -- what changed, as JSON; never a secret
    details TEXT NOT NULL DEFAULT '{}'
) STRICT;

CREATE INDEX events_by_subject ON events (kind, subject, id);
CREATE INDEX events_by_time ON events (at);

-- Answers to creates that carried an Idempotency-Key, so that a repeated request changes nothing.
CREATE TABLE idempotency (
    actor      TEXT NOT NULL,
    key        TEXT NOT NULL,
    -- method, path and a hash of the body: the same key with another request is refused
    request    TEXT NOT NULL,
    -- null while the first request is under way
    status     INTEGER,
    answer     TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT;
