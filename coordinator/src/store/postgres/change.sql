-- A batch without new jobs: what `commit.sql` does with transitions, and nothing else. To set that statement up for a single job
-- takes Postgres a quarter of all that it does about it. `progress` and `changed` stand there word for word, which a test sees to.
WITH me AS MATERIALIZED (
    SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE
),
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
-- The events of what took, numbered in the order of the batch.
logged AS (
    INSERT INTO job_events (job_id, seq, shard, shard_seq, at, attempt, actor, kind, data)
    SELECT
        e.job_id, e.seq, e.shard, e.last + row_number() OVER (PARTITION BY e.shard ORDER BY e.nr),
        e.at, e.attempt, e.actor, e.kind, e.data
    FROM unnest(
        $20::bigint[], $21::uuid[], $22::bigint[], $23::smallint[], $24::bigint[], $25::timestamptz[], $26::bigint[],
        $27::text[], $28::text[], $29::text[]
    ) WITH ORDINALITY AS e (slot, job_id, seq, shard, last, at, attempt, actor, kind, data, nr)
    JOIN changed took ON took.slot = e.slot
)
SELECT told.slot AS "slot?", told.fence AS "fence?" FROM me LEFT JOIN changed told ON true
