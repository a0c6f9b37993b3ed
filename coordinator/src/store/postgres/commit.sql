-- A whole batch. Every part that writes joins `me`, the lease, which is locked until the statement is committed: whoever
-- takes this coordinator's shards over deletes that row first, and so waits for this statement or fences it.
--
-- One slot is one job, in the order of the batch. The answer has a row for each slot of which something is to be told, and
-- at least one row where the lease is there.
WITH me AS MATERIALIZED (
    SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE
),
-- What changes from one transition to the next; a new job has no version that it comes from.
progress AS MATERIALIZED (
    SELECT p.* FROM me, unnest(
        $2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::text[],
        $10::uuid[], $11::text[], $12::boolean[], $13::text[], $14::timestamptz[], $15::timestamptz[],
        $16::timestamptz[], $17::timestamptz[], $18::text[], $19::text[]
    ) WITH ORDINALITY AS p (
        came_from, id, version, seq, attempt, tries, state, detail,
        worker, told, grants, commit_id, wake_at, queued_at,
        started_at, finished_at, given_back, blocked_on, slot
    )
),
-- The condition on terminal rows is the trigger's own, so that the trigger, which would fail the whole batch, has nothing
-- to refuse.
changed AS (
    UPDATE jobs j SET
        version = p.version, seq = p.seq, attempt = p.attempt, tries = p.tries, state = p.state, detail = p.detail,
        worker = p.worker, told = p.told, fence = CASE WHEN p.grants THEN nextval('fences') ELSE j.fence END,
        commit_id = p.commit_id, wake_at = p.wake_at, queued_at = p.queued_at, started_at = p.started_at,
        finished_at = p.finished_at, given_back = p.given_back, blocked_on = p.blocked_on
    FROM progress p
    WHERE j.id = p.id AND j.version = p.came_from AND p.came_from IS NOT NULL
        AND (j.finished_at IS NULL
            OR (j.state, j.detail, j.attempt, j.finished_at) = (p.state, p.detail, p.attempt, p.finished_at))
    RETURNING p.slot, CASE WHEN p.grants THEN j.fence END AS fence
),
-- What of a new job never changes, and its key. `hindrance` is what the caller knows to be in its way.
new AS MATERIALIZED (
    SELECT n.*, known.job_id AS existing, CASE
        WHEN known.hash = n.hash THEN NULL
        WHEN known.hash IS NOT NULL THEN 'key_reused'
        WHEN n.hindrance IS NOT NULL THEN n.hindrance
        WHEN (SELECT true FROM jobs taken WHERE taken.id = n.id) THEN 'id_taken'
    END AS fault
    FROM me, unnest(
        $20::bigint[], $21::integer[], $22::uuid[], $23::smallint[], $24::text[], $25::text[], $26::text[],
        $27::text[], $28::boolean[], $29::uuid[], $30::timestamptz[], $31::text[],
        $32::text[], $33::text[], $34::bytea[], $35::timestamptz[], $36::text[], $37::bytea[]
    ) AS n (
        slot, submission, id, shard, tags, priority, repository,
        labels, has_secrets, retry_of, created_at, spec,
        key_owner, key, hash, key_expires, hindrance, secrets
    )
    LEFT JOIN idempotency_keys known
        ON known.owner = n.key_owner AND known.key = n.key AND known.expires_at > n.created_at
),
-- Of a submission that has a fault in it nothing is stored; the first fault is its answer.
refused AS MATERIALIZED (
    SELECT DISTINCT ON (submission) submission, slot, fault FROM new WHERE fault IS NOT NULL ORDER BY submission, slot
),
fresh AS MATERIALIZED (
    SELECT n.* FROM new n
    WHERE n.existing IS NULL AND n.submission NOT IN (SELECT submission FROM refused)
),
stored AS (
    INSERT INTO jobs (
        id, shard, version, seq, attempt, tries, state, detail, tags, priority, repository, labels, has_secrets, retry_of,
        worker, told, fence, commit_id, wake_at, created_at, queued_at, started_at, finished_at, given_back,
        blocked_on, spec
    )
    SELECT
        n.id, n.shard, p.version, p.seq, p.attempt, p.tries, p.state, p.detail, n.tags, n.priority, n.repository, n.labels,
        n.has_secrets, n.retry_of, p.worker, p.told, 0, p.commit_id, p.wake_at, n.created_at, p.queued_at, p.started_at,
        p.finished_at, p.given_back, p.blocked_on, n.spec
    FROM fresh n JOIN progress p ON p.slot = n.slot
    ON CONFLICT (id) DO NOTHING
    RETURNING id
),
-- In the order of the keys, so that no two batches wait for each other.
noted AS (
    INSERT INTO idempotency_keys (owner, key, hash, job_id, expires_at)
    SELECT key_owner, key, hash, id, key_expires FROM fresh WHERE key IS NOT NULL ORDER BY key_owner, key
    ON CONFLICT (owner, key) DO UPDATE
        SET hash = excluded.hash, job_id = excluded.job_id, expires_at = excluded.expires_at
        WHERE idempotency_keys.expires_at <= (SELECT n.created_at FROM fresh n WHERE n.id = excluded.job_id)
    RETURNING job_id
),
hidden AS (
    INSERT INTO secrets (job_id, value) SELECT id, secrets FROM fresh WHERE secrets IS NOT NULL
),
-- The tag sets of new jobs, which nobody can take away meanwhile.
needed AS MATERIALIZED (
    SELECT t.hash FROM me, tag_sets t WHERE t.hash = ANY ($38::bytea[]) ORDER BY t.hash FOR KEY SHARE OF t
),
-- The events of what took, numbered in the order of the batch.
logged AS (
    INSERT INTO job_events (job_id, seq, shard, shard_seq, at, attempt, actor, kind, data)
    SELECT
        e.job_id, e.seq, e.shard, e.last + row_number() OVER (PARTITION BY e.shard ORDER BY e.nr),
        e.at, e.attempt, e.actor, e.kind, e.data
    FROM unnest(
        $39::bigint[], $40::uuid[], $41::bigint[], $42::smallint[], $43::bigint[], $44::timestamptz[], $45::bigint[],
        $46::text[], $47::text[], $48::text[]
    ) WITH ORDINALITY AS e (slot, job_id, seq, shard, last, at, attempt, actor, kind, data, nr)
    JOIN (SELECT slot FROM changed UNION ALL SELECT slot FROM fresh) took ON took.slot = e.slot
)
SELECT
    told.slot AS "slot?", told.what AS "what?", told.fence AS "fence?", told.existing AS "existing?",
    -- Another statement has stored such a job, noted such a key or removed such a tag set since this one's snapshot.
    CASE
        WHEN (SELECT count(*) FROM stored) < (SELECT count(*) FROM fresh)
            OR (SELECT count(*) FROM noted) < (SELECT count(*) FROM fresh WHERE key IS NOT NULL)
            OR (SELECT count(*) FROM needed) < cardinality($38::bytea[])
        THEN lose_race()
    END AS lost
FROM me LEFT JOIN (
    SELECT slot, 'changed' AS what, fence, NULL::uuid AS existing FROM changed
    UNION ALL SELECT slot, 'existing', NULL, existing FROM new WHERE fault IS NULL AND existing IS NOT NULL
    UNION ALL SELECT slot, fault, NULL, NULL FROM refused
) told ON true
