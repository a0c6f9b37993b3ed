-- Jobs, their events and logs, and who may write them, in SQLite's own types: identities are BLOBs of 16 bytes, times
-- are microseconds since 1970 (UTC), JSON is TEXT. The tables and columns are those of Postgres, but for what only a
-- cluster needs: the data directory's lock is the one coordinator's lease, so its row has neither address nor expiry.

-- The coordinators that may write: one at a time.
CREATE TABLE coordinators (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16)
) STRICT, WITHOUT ROWID;

CREATE TABLE shards (
    shard         INTEGER NOT NULL PRIMARY KEY,
    owner         BLOB,
    epoch         INTEGER NOT NULL DEFAULT 0,
    -- Every event of the shard up to this number is published.
    published_seq INTEGER NOT NULL DEFAULT 0
) STRICT;

WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 255)
INSERT INTO shards (shard) SELECT n FROM numbers;

-- The sequence of fences: the last one that was drawn.
CREATE TABLE fences (
    one  INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL
) STRICT;

INSERT INTO fences (one, last) VALUES (1, 0);

CREATE TABLE jobs (
    id          BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    shard       INTEGER NOT NULL REFERENCES shards (shard),
    version     INTEGER NOT NULL,
    -- The number of the job's last event.
    seq         INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    tries       INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    -- What only this state knows, a terminal one's outcome included (JSON).
    detail      TEXT    NOT NULL,
    tags        TEXT    NOT NULL,
    priority    TEXT    NOT NULL,
    repository  TEXT,
    labels      TEXT    NOT NULL,
    has_secrets INTEGER NOT NULL,
    retry_of    BLOB,
    worker      BLOB,
    -- What a worker has last told of an attempt's end (JSON).
    told        TEXT,
    fence       INTEGER NOT NULL,
    commit_id   TEXT,
    wake_at     INTEGER,
    created_at  INTEGER NOT NULL,
    queued_at   INTEGER,
    started_at  INTEGER,
    finished_at INTEGER,
    -- Last, because it can be long and most queries don't read it.
    spec        TEXT    NOT NULL,
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'canceled'))),
    CHECK ((wake_at IS NULL) = (state IN ('succeeded', 'failed', 'canceled')))
) STRICT;

-- Lists by state, the live jobs, the offers of queued ones.
CREATE INDEX jobs_by_state ON jobs (state, id);
-- What a cancel by filter goes through.
CREATE INDEX jobs_open ON jobs (id) WHERE finished_at IS NULL;
-- The timers, answered from the index alone.
CREATE INDEX jobs_due ON jobs (wake_at, id, shard) WHERE wake_at IS NOT NULL;

-- A late report may still raise version and seq and fill in told.
CREATE TRIGGER jobs_terminal_stays BEFORE UPDATE ON jobs
WHEN old.state IN ('succeeded', 'failed', 'canceled')
    AND (new.id, new.state, new.detail, new.attempt, new.finished_at)
        IS NOT (old.id, old.state, old.detail, old.attempt, old.finished_at)
BEGIN
    SELECT RAISE(ABORT, 'a terminal job keeps its state, outcome and attempt');
END;

CREATE TABLE job_events (
    job_id    BLOB    NOT NULL REFERENCES jobs (id),
    seq       INTEGER NOT NULL,
    shard     INTEGER NOT NULL,
    shard_seq INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    attempt   INTEGER NOT NULL,
    actor     TEXT    NOT NULL,
    kind      TEXT    NOT NULL,
    data      TEXT    NOT NULL,
    PRIMARY KEY (job_id, seq),
    UNIQUE (shard, shard_seq)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER job_events_stay_as_they_are BEFORE UPDATE ON job_events
BEGIN
    SELECT RAISE(ABORT, 'an event is never altered');
END;

CREATE TRIGGER job_events_stay BEFORE DELETE ON job_events
BEGIN
    SELECT RAISE(ABORT, 'an event is never deleted');
END;

CREATE TABLE idempotency_keys (
    owner      TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    job_id     BLOB    NOT NULL REFERENCES jobs (id),
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;

-- A job's secrets, encrypted.
CREATE TABLE secrets (
    job_id BLOB NOT NULL PRIMARY KEY REFERENCES jobs (id),
    value  BLOB NOT NULL
) STRICT;

-- The sets of tags that submitted jobs ask for. Jobs without tags are always possible.
CREATE TABLE tag_sets (
    tags TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

INSERT INTO tag_sets (tags) VALUES ('[]');

CREATE TABLE workers (
    id       BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    instance BLOB    NOT NULL,
    tags     TEXT    NOT NULL,
    slots    INTEGER NOT NULL,
    seen_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE log_chunks (
    job_id     BLOB    NOT NULL REFERENCES jobs (id),
    attempt    INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    first_line INTEGER NOT NULL,
    last_line  INTEGER NOT NULL,
    segments   TEXT    NOT NULL,
    PRIMARY KEY (job_id, attempt, number)
) STRICT;

-- A reader finds the chunk in whose middle it stopped.
CREATE INDEX log_chunks_by_line ON log_chunks (job_id, attempt, last_line, number);

-- What the chunks of an attempt amount to, so that its bound needs no sum over them.
CREATE TABLE log_totals (
    job_id  BLOB    NOT NULL REFERENCES jobs (id),
    attempt INTEGER NOT NULL,
    chunks  INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    PRIMARY KEY (job_id, attempt)
) STRICT, WITHOUT ROWID;
