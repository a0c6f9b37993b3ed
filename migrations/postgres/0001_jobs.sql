-- Jobs, their events and logs, and who may write them, in Postgres's own types. The tables and columns are those of
-- SQLite, but for what only a cluster needs. JSON is kept as text: it is written and read whole, and an output may hold
-- what jsonb refuses (\u0000).
--
-- No foreign keys between the tables that every commit writes: the one statement that writes a job's events, keys and
-- secrets takes their job from what it has just written, and a check for each row would double its work.

-- The coordinators that may write: a row is a lease, and every statement that writes locks its own coordinator's FOR KEY
-- SHARE. A renewal doesn't wait for such a lock; whoever deletes the row does.
CREATE TABLE coordinators (
    id         uuid        NOT NULL PRIMARY KEY,
    address    text        NOT NULL,
    format     bigint      NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE shards (
    shard         smallint NOT NULL PRIMARY KEY,
    -- Whose row is gone owns nothing any more.
    owner         uuid,
    epoch         bigint   NOT NULL DEFAULT 0,
    -- Every event of the shard up to this number is published.
    published_seq bigint   NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

INSERT INTO shards (shard) SELECT generate_series(0, 255);

-- Drawn for every grant.
CREATE SEQUENCE fences;

CREATE TABLE jobs (
    id          uuid        NOT NULL PRIMARY KEY,
    shard       smallint    NOT NULL,
    version     bigint      NOT NULL,
    -- The number of the job's last event.
    seq         bigint      NOT NULL,
    attempt     bigint      NOT NULL,
    tries       bigint      NOT NULL,
    state       text        NOT NULL,
    -- All that the indexes know of the state, so that a transition between two states of one phase moves no index entry.
    phase       text        NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN state IN ('scheduled', 'blocked') THEN 'waiting'
            WHEN state IN ('assigned', 'running', 'canceling') THEN 'live'
            ELSE state
        END
    ) STORED,
    -- What only this state knows, a terminal one's outcome included (JSON).
    detail      text        NOT NULL,
    tags        text        NOT NULL,
    priority    text        NOT NULL,
    repository  text,
    labels      text        NOT NULL,
    has_secrets boolean     NOT NULL,
    retry_of    uuid,
    worker      uuid,
    -- What a worker has last told of an attempt's end (JSON).
    told        text,
    fence       bigint      NOT NULL,
    commit_id   text,
    wake_at     timestamptz,
    created_at  timestamptz NOT NULL,
    queued_at   timestamptz,
    started_at  timestamptz,
    finished_at timestamptz,
    -- Last, because it can be long and most queries don't read it.
    spec        text        NOT NULL,
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'canceled'))),
    CHECK ((wake_at IS NULL) = (state IN ('succeeded', 'failed', 'canceled')))
    -- Half of each page is left for later versions of its rows: then nine of ten updates that move no index entry stay in
    -- their page.
) WITH (fillfactor = 50);

-- Lists by state, the live jobs, the offers of queued ones, what a cancel by filter goes through.
CREATE INDEX jobs_by_phase ON jobs (phase, id);
-- The timers.
CREATE INDEX jobs_due ON jobs (wake_at, id, shard) WHERE wake_at IS NOT NULL;

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', tg_argv[0];
END $$;

-- A late report may still raise version and seq and fill in told. AFTER, because a trigger BEFORE it would lock every row
-- once more; the exception takes the change back all the same.
CREATE TRIGGER jobs_terminal_stays AFTER UPDATE ON jobs FOR EACH ROW
WHEN (old.state IN ('succeeded', 'failed', 'canceled')
    AND (new.id, new.state, new.detail, new.attempt, new.finished_at)
        IS DISTINCT FROM (old.id, old.state, old.detail, old.attempt, old.finished_at))
EXECUTE FUNCTION refuse('a terminal job keeps its state, outcome and attempt');

CREATE TABLE job_events (
    job_id    uuid        NOT NULL,
    seq       bigint      NOT NULL,
    shard     smallint    NOT NULL,
    shard_seq bigint      NOT NULL,
    at        timestamptz NOT NULL,
    attempt   bigint      NOT NULL,
    actor     text        NOT NULL,
    kind      text        NOT NULL,
    data      text        NOT NULL,
    PRIMARY KEY (job_id, seq),
    CONSTRAINT job_events_numbered_once UNIQUE (shard, shard_seq)
);

CREATE TRIGGER job_events_stay_as_they_are AFTER UPDATE ON job_events FOR EACH ROW
EXECUTE FUNCTION refuse('an event is never altered');

CREATE TRIGGER job_events_stay AFTER DELETE ON job_events FOR EACH ROW
EXECUTE FUNCTION refuse('an event is never deleted');

CREATE TRIGGER job_events_stay_all BEFORE TRUNCATE ON job_events FOR EACH STATEMENT
EXECUTE FUNCTION refuse('an event is never deleted');

CREATE TABLE idempotency_keys (
    owner      text        NOT NULL COLLATE "C",
    key        text        NOT NULL COLLATE "C",
    hash       bytea       NOT NULL CHECK (length(hash) = 32),
    job_id     uuid        NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (owner, key)
);

-- A job's secrets, encrypted.
CREATE TABLE secrets (
    job_id uuid  NOT NULL PRIMARY KEY,
    value  bytea NOT NULL
);

-- The sets of tags that submitted jobs ask for, under the SHA-256 of their text, which may be too long for an index. Jobs
-- without tags are always possible.
CREATE TABLE tag_sets (
    hash bytea NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    tags text  NOT NULL COLLATE "C"
);

INSERT INTO tag_sets (hash, tags) VALUES (sha256('[]'), '[]');

CREATE TABLE log_chunks (
    job_id     uuid   NOT NULL,
    attempt    bigint NOT NULL,
    number     bigint NOT NULL,
    first_line bigint NOT NULL,
    last_line  bigint NOT NULL,
    segments   text   NOT NULL,
    PRIMARY KEY (job_id, attempt, number)
);

-- A reader finds the chunk in whose middle it stopped.
CREATE INDEX log_chunks_by_line ON log_chunks (job_id, attempt, last_line, number);

-- What the chunks of an attempt amount to, so that its bound needs no sum over them.
CREATE TABLE log_totals (
    job_id  uuid   NOT NULL,
    attempt bigint NOT NULL,
    chunks  bigint NOT NULL,
    bytes   bigint NOT NULL,
    PRIMARY KEY (job_id, attempt)
) WITH (fillfactor = 50);

-- Ends a statement that finds, too late for its snapshot, that another was first: repeated, it sees what that one wrote.
CREATE FUNCTION lose_race() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'another statement was first' USING ERRCODE = 'serialization_failure';
END $$;
