//! How Postgres goes through the jobs of a phase: by the index that has them together and in order, however many others there
//! are. By any other way a page costs a look at every job that there ever was.

use std::fmt::Write;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor, Row};
use tests::postgres::Postgres;

use super::query_cache::entries;

/// What the queries that read a page of a phase have in common.
const PAGE: [&str; 2] = ["(phase, id) > (", "(jobs.phase, id) > ("];
/// As many queued jobs as others, in turn: to go through all of them by their ids looks cheap, as long as a page gets full.
const JOBS: &str = "INSERT INTO jobs (id, shard, version, seq, attempt, tries, state, detail, tags, priority, repository, \
     labels, has_secrets, fence, wake_at, created_at, queued_at, finished_at, spec) \
     SELECT lpad(to_hex(n), 32, '0')::uuid, n % 256, 1, 2, 0, 0, CASE n % 2 WHEN 0 THEN 'queued' ELSE 'succeeded' END, '{}', \
     '[\"linux\"]', 'normal', 'of many ' || n, '{\"team\":\"core\"}', false, 0, CASE n % 2 WHEN 0 THEN now() END, now(), now(), \
     CASE n % 2 WHEN 1 THEN now() END, repeat('x', 400) FROM generate_series(1, 40000) n; ANALYZE jobs";

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_phase_is_read_by_the_index_of_phases() {
    let database = Postgres::shared().database();
    database.execute(JOBS).unwrap();
    let mut session = database.session().await;
    let pages: Vec<Value> = entries()
        .into_iter()
        .filter(|entry| PAGE.iter().any(|page| entry["query"].as_str().expect("a query").contains(page)))
        .collect();
    assert_eq!(
        pages.len(),
        5,
        "offers, a place among them, live jobs, what a cancel by filter is about, and what has ended"
    );
    session.execute("SET plan_cache_mode = force_custom_plan").await.unwrap();
    for page in pages {
        let query = page["query"].as_str().expect("a query");
        let kinds = page["describe"]["parameters"]["Left"].as_array().expect("its parameters");
        let given: Vec<&str> = kinds.iter().map(given).collect();
        let prepare = format!("DEALLOCATE ALL; PREPARE page AS {query}");
        session.execute(AssertSqlSafe(prepare)).await.unwrap();
        let explain = format!("EXPLAIN (COSTS off) EXECUTE page ({})", given.join(", "));
        let rows = session.fetch_all(sqlx::raw_sql(AssertSqlSafe(explain))).await.unwrap();
        let plan = rows.iter().fold(String::new(), |mut plan, row| {
            writeln!(plan, "{}", row.get::<String, _>(0)).expect("a string takes it");
            plan
        });
        assert!(plan.contains("jobs_by_phase"), "{query}\n{plan}");
        assert!(!plan.contains("jobs_pkey") && !plan.contains("Seq Scan on jobs"), "{query}\n{plan}");
    }
}

/// A value for a parameter of that type: of a filter, one that no job has.
fn given(kind: &Value) -> &'static str {
    match kind.as_str() {
        Some("Uuid") => "'00000000-0000-0000-0000-000000000000'",
        Some("Int8") => "100",
        Some("Int2Array") => "'{1,2,3}'",
        Some("Text") => "'queued'",
        Some("TextArray") => "'{high}'",
        Some("Timestamptz") => "now()",
        _ => panic!("a parameter of another type: {kind}"),
    }
}
