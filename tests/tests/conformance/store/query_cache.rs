//! That the cache of the queries on Postgres (`.sqlx`), which every build without a database trusts, says what a database that
//! was just migrated says: of each query in the sources, and of no other. It is written anew by
//!
//! ```text
//! rm .sqlx/*; DATABASE_URL=postgres://… SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$PWD/.sqlx cargo check -p coordinator
//! ```
//!
//! against such a database.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor, SqlSafeStr};
use tests::postgres::Postgres;

/// The macros whose first piece of text is a query, and the one whose is the path of a file that holds one.
const QUERY: [&str; 3] = ["query!(", "query_as!(", "query_scalar!("];
const FILE: &str = "query_file!(";

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_of_queries_says_what_the_database_says() {
    let database = Postgres::shared().database();
    let mut session = database.session().await;
    for (query, cached) in cached() {
        let described = (&mut session).describe(AssertSqlSafe(query.clone()).into_sql_str()).await.unwrap();
        assert_eq!(serde_json::to_value(described).unwrap(), cached, "{query}");
    }
}

#[test]
fn the_cache_has_the_queries_of_the_sources_and_no_others() {
    let cached: Vec<_> = cached().into_keys().collect();
    let mut written: Vec<_> = sources().iter().flat_map(|source| queries(source)).collect();
    written.sort();
    written.dedup();
    assert!(written.len() > 30, "the queries aren't found: {written:?}");
    assert_eq!(written, cached);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Each query in the cache, and what it says of it.
fn cached() -> BTreeMap<String, Value> {
    let read = |mut entry: Value| (entry["query"].as_str().expect("a query").to_owned(), entry["describe"].take());
    entries().into_iter().map(read).collect()
}

/// The entries of the cache.
pub fn entries() -> Vec<Value> {
    let paths = fs::read_dir(root().join(".sqlx")).expect("the cache").map(|entry| entry.expect("a file").path());
    let read = |path: PathBuf| {
        let entry: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
        let name = format!("query-{}.json", entry["hash"].as_str().expect("a hash"));
        assert!(path.ends_with(name), "{}", path.display());
        entry
    };
    paths.map(read).collect()
}

/// The files that may hold queries on Postgres.
fn sources() -> Vec<PathBuf> {
    let store = root().join("coordinator/src/store");
    let inside = fs::read_dir(store.join("postgres")).expect("its modules").map(|entry| entry.expect("a file").path());
    let rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    inside.filter(rust).chain([store.join("postgres.rs")]).collect()
}

/// The queries that a file's macros name.
fn queries(source: &Path) -> Vec<String> {
    let text = fs::read_to_string(source).expect("a source");
    let after = |name: &'static str| text.match_indices(name).map(move |(at, _)| at + name.len());
    let inline = QUERY.into_iter().flat_map(after).map(|at| literal(&text[at..]));
    let files = after(FILE).map(|at| {
        let path = root().join("coordinator").join(literal(&text[at..]));
        fs::read_to_string(path).expect("a file with a query")
    });
    inline.chain(files).collect()
}

/// The first string in `code`; one with escapes is not understood.
fn literal(code: &str) -> String {
    let begin = code.find('"').expect("a string");
    let end = if code[..begin].ends_with("r#") { "\"#" } else { "\"" };
    let (string, _) = code[begin + 1..].split_once(end).expect("its end");
    assert!(end == "\"#" || !string.contains('\\'), "write it as a raw string: {string}");
    string.to_owned()
}
