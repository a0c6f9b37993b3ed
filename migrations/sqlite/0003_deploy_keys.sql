-- Deploy keys, the audit of who did what with them, and the master keys that they and the jobs' secrets are encrypted under.

CREATE TABLE deploy_keys (
    name        TEXT    NOT NULL PRIMARY KEY CHECK (name <> ''),
    version     INTEGER NOT NULL CHECK (version > 0),
    algorithm   TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    public_key  TEXT    NOT NULL,
    known_hosts TEXT    NOT NULL,
    -- Encrypted, and bound to name and version.
    private_key BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    changed_at  INTEGER NOT NULL
) STRICT;

-- About jobs and keys that may never have been there, so that nothing here refers to them.
CREATE TABLE audit (
    id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    outcome TEXT    NOT NULL,
    job_id  BLOB    CHECK (length(job_id) = 16),
    attempt INTEGER,
    request BLOB    CHECK (length(request) = 16)
) STRICT;

CREATE INDEX audit_by_subject ON audit (subject, at, id);
-- A request is answered once.
CREATE UNIQUE INDEX audit_requests ON audit (request) WHERE request IS NOT NULL;

CREATE TRIGGER audit_stays_as_it_is BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'a line of the audit is never altered');
END;

CREATE TRIGGER audit_stays BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'a line of the audit is never deleted');
END;

CREATE TABLE master_keys (
    id      TEXT NOT NULL PRIMARY KEY CHECK (id <> ''),
    -- What tells whether somebody's key of that id is this one.
    "check" BLOB NOT NULL CHECK (length("check") = 32)
) STRICT, WITHOUT ROWID;

-- That the job was given back for want of an answer about its deploy key (JSON).
ALTER TABLE jobs ADD COLUMN given_back TEXT;
-- The deploy key that a blocked job waits for. A coordinator of an earlier version leaves it as it is: only beside the
-- state does it count.
ALTER TABLE jobs ADD COLUMN blocked_on TEXT;

CREATE INDEX jobs_blocked ON jobs (blocked_on, id, shard) WHERE blocked_on IS NOT NULL;
