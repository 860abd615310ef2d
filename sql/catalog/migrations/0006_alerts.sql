-- Alerts: how far the trail was read, what lasts, and which messages are owed.

CREATE TABLE alert_cursor (
    only  INTEGER PRIMARY KEY CHECK (only = 1),
    -- the newest event that was looked at
    event INTEGER NOT NULL
) STRICT;

-- A condition that began and has not ended. One row, however often it is seen again: messages are not repeated.
CREATE TABLE alert_incidents (
    rule      TEXT NOT NULL,
    model     TEXT NOT NULL,
    condition TEXT NOT NULL,
    incident  TEXT NOT NULL UNIQUE,
    since     INTEGER NOT NULL,
    -- when it was last told of: the alert, or the newest reminder
    told_at   INTEGER NOT NULL,
    -- the newest finding, as JSON
    finding   TEXT NOT NULL,
    PRIMARY KEY (rule, model, condition)
) STRICT;

-- The outbox: a message to one channel, written in the transaction that changed its incident.
CREATE TABLE alert_deliveries (
    -- the receiver sees it too, the same at every attempt
    delivery_id TEXT PRIMARY KEY,
    channel     TEXT NOT NULL,
    incident    TEXT NOT NULL,
    -- the message as JSON
    notice      TEXT NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('owed', 'delivered', 'given_up')),
    attempts    INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    -- not before; of an owed one
    due_at      INTEGER NOT NULL,
    ended_at    INTEGER,
    -- of the last attempt
    error       TEXT
) STRICT;

CREATE INDEX alert_deliveries_owed ON alert_deliveries (due_at) WHERE status = 'owed';
CREATE INDEX alert_deliveries_of_incident ON alert_deliveries (incident, channel, created_at);
CREATE INDEX alert_deliveries_by_time ON alert_deliveries (created_at);
