-- Stores chunks of attempts that the worker $2 holds, or whose end isn't before $3, in shards of the coordinator $1. An attempt
-- that was followed by a wait has ended with the job's last event at the latest. The answer has the numbers of the chunks that
-- are stored, now or before, and at least one row where the lease is there.
WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
held AS MATERIALIZED (
    SELECT c.*, EXISTS (
        SELECT FROM log_chunks k WHERE k.job_id = c.job_id AND k.attempt = c.attempt AND k.number = c.number
    ) AS known
    FROM me, unnest(
        $4::bigint[], $5::uuid[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[],
        $11::text[]
    ) AS c (nr, job_id, attempt, number, first_line, last_line, bytes, segments)
    JOIN jobs j ON j.id = c.job_id AND j.attempt = c.attempt AND j.worker = $2
    JOIN shards s ON s.shard = j.shard AND s.owner = $1
    WHERE j.phase = 'live' OR $3 <= coalesce(
        j.finished_at, (SELECT e.at FROM job_events e WHERE e.job_id = j.id AND e.seq = j.seq)
    )
),
-- What is new and what the attempt would come to with it; of a repeat within the statement the first counts.
counted AS MATERIALIZED (
    SELECT h.*, coalesce(t.bytes, 0)
        + sum(h.bytes) OVER (PARTITION BY h.job_id, h.attempt ORDER BY h.nr)::bigint AS total
    FROM (
        SELECT DISTINCT ON (job_id, attempt, number) * FROM held WHERE NOT known
        ORDER BY job_id, attempt, number, nr
    ) h
    LEFT JOIN log_totals t ON t.job_id = h.job_id AND t.attempt = h.attempt
),
-- Another statement may be storing the same ones at this moment.
stored AS (
    INSERT INTO log_chunks (job_id, attempt, number, first_line, last_line, segments)
    SELECT job_id, attempt, number, first_line, last_line, segments FROM counted WHERE total <= $12
    ORDER BY job_id, attempt, number
    ON CONFLICT DO NOTHING
    RETURNING job_id, attempt, number
),
totals AS (
    INSERT INTO log_totals AS t (job_id, attempt, chunks, bytes)
    SELECT s.job_id, s.attempt, count(*), sum(c.bytes)
    FROM stored s JOIN counted c ON (c.job_id, c.attempt, c.number) = (s.job_id, s.attempt, s.number)
    GROUP BY s.job_id, s.attempt ORDER BY s.job_id, s.attempt
    ON CONFLICT (job_id, attempt) DO UPDATE
        SET chunks = t.chunks + excluded.chunks, bytes = t.bytes + excluded.bytes
)
SELECT taken.nr AS "nr?" FROM me LEFT JOIN (
    SELECT h.nr FROM held h LEFT JOIN counted c
        ON (c.job_id, c.attempt, c.number) = (h.job_id, h.attempt, h.number)
    WHERE h.known OR c.total <= $12
) taken ON true
