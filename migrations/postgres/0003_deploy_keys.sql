-- Deploy keys, the audit of who did what with them, and the master keys that they and the jobs' secrets are encrypted under.

CREATE TABLE deploy_keys (
    name        text        NOT NULL COLLATE "C" PRIMARY KEY CHECK (name <> ''),
    version     bigint      NOT NULL CHECK (version > 0),
    algorithm   text        NOT NULL,
    fingerprint text        NOT NULL,
    public_key  text        NOT NULL,
    known_hosts text        NOT NULL,
    -- Encrypted, and bound to name and version.
    private_key bytea       NOT NULL,
    created_at  timestamptz NOT NULL,
    changed_at  timestamptz NOT NULL
);

-- About jobs and keys that may never have been there, so that nothing here refers to them.
CREATE TABLE audit (
    id      bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL,
    actor   text        NOT NULL,
    action  text        NOT NULL,
    subject text        NOT NULL COLLATE "C",
    outcome text        NOT NULL,
    job_id  uuid,
    attempt bigint,
    request uuid
);

CREATE INDEX audit_by_subject ON audit (subject, at, id);
-- A request is answered once.
CREATE UNIQUE INDEX audit_requests ON audit (request) WHERE request IS NOT NULL;

CREATE TRIGGER audit_stays_as_it_is AFTER UPDATE ON audit FOR EACH ROW
EXECUTE FUNCTION refuse('a line of the audit is never altered');

CREATE TRIGGER audit_stays AFTER DELETE ON audit FOR EACH ROW
EXECUTE FUNCTION refuse('a line of the audit is never deleted');

CREATE TRIGGER audit_stays_all BEFORE TRUNCATE ON audit FOR EACH STATEMENT
EXECUTE FUNCTION refuse('a line of the audit is never deleted');

CREATE TABLE master_keys (
    id      text  NOT NULL COLLATE "C" PRIMARY KEY CHECK (id <> ''),
    -- What tells whether somebody's key of that id is this one.
    "check" bytea NOT NULL CHECK (length("check") = 32)
);

-- That the job was given back for want of an answer about its deploy key (JSON).
ALTER TABLE jobs ADD COLUMN given_back text;
-- The deploy key that a blocked job waits for. A coordinator of an earlier version leaves it as it is: only beside the
-- state does it count.
ALTER TABLE jobs ADD COLUMN blocked_on text COLLATE "C";

-- Of blocked jobs alone, and unlike an index on the state it is moved by no transition within a phase.
CREATE INDEX jobs_blocked ON jobs (blocked_on, id, shard) WHERE blocked_on IS NOT NULL;

-- How many rows a table has, for a statement that adds one where there is room. Who counts waits for those who have counted
-- before, and then sees what they have added: each statement of such a function has a snapshot of its own.
CREATE FUNCTION counted_alone(counted regclass) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    rows bigint;
BEGIN
    PERFORM pg_advisory_xact_lock('pg_class'::regclass::oid::integer, counted::oid::integer);
    EXECUTE format('SELECT count(*) FROM %s', counted) INTO rows;
    RETURN rows;
END $$;
