-- Who may take part: tokens, and what a worker's enrolment and its hellos have told. What only a cluster needs (the
-- coordinators' addresses and the ends of their leases) has no place in an embedded database.

CREATE TABLE tokens (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    kind       TEXT    NOT NULL CHECK (kind IN ('admin', 'join')),
    name       TEXT    NOT NULL,
    digest     BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT, WITHOUT ROWID;

-- The workers of before had no secret, so none of them can be one any more.
DROP TABLE workers;

CREATE TABLE workers (
    id          BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    name        TEXT    NOT NULL,
    -- What its messages are proved by: a digest of its secret.
    key         BLOB    NOT NULL CHECK (length(key) = 32),
    mode        TEXT    NOT NULL CHECK (mode IN ('active', 'paused', 'draining')),
    enrolled_at INTEGER NOT NULL,
    -- What its last hello said; empty before the first.
    seen_at     INTEGER,
    instance    BLOB,
    start       INTEGER,
    tags        TEXT,
    slots       INTEGER,
    running     INTEGER,
    draining    INTEGER
) STRICT, WITHOUT ROWID;
