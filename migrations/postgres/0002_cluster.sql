-- Who may take part: tokens, and what a worker's enrolment and its hellos have told.

CREATE TABLE tokens (
    id         uuid        NOT NULL PRIMARY KEY,
    kind       text        NOT NULL CHECK (kind IN ('admin', 'join')),
    name       text        NOT NULL,
    digest     bytea       NOT NULL UNIQUE CHECK (length(digest) = 32),
    created_at timestamptz NOT NULL,
    expires_at timestamptz
);

CREATE TABLE workers (
    id          uuid        NOT NULL PRIMARY KEY,
    name        text        NOT NULL,
    -- What its messages are proved by: a digest of its secret.
    key         bytea       NOT NULL CHECK (length(key) = 32),
    mode        text        NOT NULL CHECK (mode IN ('active', 'paused', 'draining')),
    enrolled_at timestamptz NOT NULL,
    -- What its last hello said; empty before the first.
    seen_at     timestamptz,
    instance    uuid,
    start       bigint,
    tags        text,
    slots       bigint,
    running     bigint,
    draining    boolean
) WITH (fillfactor = 50);
