-- Who uses the service, and what they prove it with. Secrets are here only as digests: of a password its argon2id hash,
-- of everything random (tokens, sessions, links) its SHA-256.

CREATE TABLE users (
    user_id       TEXT PRIMARY KEY,
    -- in lower case
    email         TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    role          TEXT NOT NULL CHECK (role IN ('admin', 'editor', 'data_manager', 'audience_manager', 'viewer')),
    -- null: invited and not yet here, or signs in through the identity provider
    password_hash TEXT,
    -- who the identity provider says it is
    oidc_issuer   TEXT,
    oidc_subject  TEXT,
    disabled      INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_at    INTEGER NOT NULL,
    created_by    TEXT NOT NULL,
    updated_at    INTEGER NOT NULL,
    updated_by    TEXT NOT NULL,
    last_login_at INTEGER,
    -- counts up with every change: the ETag
    revision      INTEGER NOT NULL DEFAULT 1,
    CHECK ((oidc_issuer IS NULL) = (oidc_subject IS NULL))
) STRICT;

CREATE UNIQUE INDEX one_user_a_subject ON users (oidc_issuer, oidc_subject) WHERE oidc_subject IS NOT NULL;

CREATE TABLE tokens (
    -- the public part of the token's text
    token_id     TEXT PRIMARY KEY,
    digest       BLOB NOT NULL CHECK (length(digest) = 32),
    label        TEXT NOT NULL,
    role         TEXT NOT NULL CHECK (role IN ('admin', 'editor', 'data_manager', 'audience_manager', 'viewer', 'public')),
    -- names of permissions, a space between; null: all of the role's
    scopes       TEXT,
    created_at   INTEGER NOT NULL,
    created_by   TEXT NOT NULL,
    -- the user in whose name it was made: it ends with the user and never does more; null: made at the command line
    user_id      TEXT REFERENCES users (user_id) ON DELETE CASCADE,
    -- null: never
    expires_at   INTEGER,
    -- to a minute
    last_used_at INTEGER,
    revoked_at   INTEGER,
    revoked_by   TEXT
) STRICT;

CREATE INDEX tokens_by_user ON tokens (user_id);

-- A browser that is signed in.
CREATE TABLE sessions (
    digest       BLOB PRIMARY KEY CHECK (length(digest) = 32),
    user_id      TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    created_at   INTEGER NOT NULL,
    -- to a minute
    last_seen_at INTEGER NOT NULL,
    -- the latest end, however busy it is
    expires_at   INTEGER NOT NULL
) STRICT;

CREATE INDEX sessions_by_user ON sessions (user_id);

-- Links that work once: to found the first admin, or to set a password.
CREATE TABLE one_time_links (
    digest     BLOB PRIMARY KEY CHECK (length(digest) = 32),
    kind       TEXT NOT NULL CHECK (kind IN ('first_admin', 'invitation')),
    user_id    TEXT REFERENCES users (user_id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER,
    CHECK ((kind = 'invitation') = (user_id IS NOT NULL))
) STRICT;

CREATE INDEX one_time_links_by_user ON one_time_links (user_id);
