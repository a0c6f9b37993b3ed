-- What is old goes: a job that has ended, with its events, all of which are published, in one transaction. Nothing else of either
-- is ever deleted, whoever asks.

-- A table without rows.
CREATE TABLE never (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one IS NULL)
) STRICT;

-- The jobs that a transaction removes. It can't be committed while one of them is still here, and they leave with their jobs
-- alone: so no job's events go without it.
CREATE TABLE removals (
    job_id BLOB    NOT NULL PRIMARY KEY,
    one    INTEGER NOT NULL DEFAULT 1 REFERENCES never (one) DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

CREATE TRIGGER removals_are_of_what_has_ended BEFORE INSERT ON removals
WHEN NOT EXISTS (SELECT 1 FROM jobs WHERE id = new.job_id AND finished_at IS NOT NULL)
BEGIN
    SELECT RAISE(ABORT, 'a job is never deleted before it has ended');
END;

CREATE TRIGGER removals_are_of_what_is_published BEFORE INSERT ON removals
WHEN EXISTS (
    SELECT 1 FROM job_events e JOIN shards s ON s.shard = e.shard
    WHERE e.job_id = new.job_id AND e.shard_seq > s.published_seq
)
BEGIN
    SELECT RAISE(ABORT, 'an event is never deleted before it is published');
END;

CREATE TRIGGER removals_stay BEFORE DELETE ON removals
WHEN EXISTS (SELECT 1 FROM jobs WHERE id = old.job_id)
BEGIN
    SELECT RAISE(ABORT, 'an event is never deleted without its job');
END;

CREATE TRIGGER removals_stay_as_they_are BEFORE UPDATE ON removals
BEGIN
    SELECT RAISE(ABORT, 'an event is never deleted without its job');
END;

DROP TRIGGER job_events_stay;

CREATE TRIGGER job_events_stay BEFORE DELETE ON job_events
WHEN NOT EXISTS (SELECT 1 FROM removals WHERE job_id = old.job_id)
BEGIN
    SELECT RAISE(ABORT, 'an event is never deleted without its job');
END;

CREATE TRIGGER jobs_stay BEFORE DELETE ON jobs
WHEN NOT EXISTS (SELECT 1 FROM removals WHERE job_id = old.id)
BEGIN
    SELECT RAISE(ABORT, 'a job is never deleted before it has ended, or without its events');
END;

CREATE TRIGGER jobs_take_their_removal_along AFTER DELETE ON jobs
BEGIN
    DELETE FROM removals WHERE job_id = old.id;
END;

-- What has expired, the oldest first.
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);
-- A job that goes is looked for among the keys.
CREATE INDEX idempotency_keys_by_job ON idempotency_keys (job_id);
