-- What is old goes: a job that has ended, with its events, all of which are published, in one statement. Nothing else of either
-- is ever deleted, whoever asks. The triggers look when the whole statement is done, so that each sees what went with it.

DROP TRIGGER job_events_stay ON job_events;

CREATE FUNCTION keep_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM gone JOIN jobs ON jobs.id = gone.job_id) THEN
        RAISE EXCEPTION 'an event is never deleted without its job';
    END IF;
    IF EXISTS (SELECT FROM gone JOIN shards ON shards.shard = gone.shard WHERE gone.shard_seq > shards.published_seq) THEN
        RAISE EXCEPTION 'an event is never deleted before it is published';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER job_events_stay AFTER DELETE ON job_events REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
EXECUTE FUNCTION keep_events();

CREATE FUNCTION keep_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM gone WHERE finished_at IS NULL) THEN
        RAISE EXCEPTION 'a job is never deleted before it has ended';
    END IF;
    IF EXISTS (SELECT FROM gone JOIN job_events ON job_events.job_id = gone.id) THEN
        RAISE EXCEPTION 'a job is never deleted without its events';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER jobs_stay AFTER DELETE ON jobs REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
EXECUTE FUNCTION keep_jobs();

-- What has expired, the oldest first.
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);
