//! Deploy keys as a worker fetches them: early, again and again, and never at the price of its slot.

use serde_json::{Value, json};
use shared::job::{AttemptEnd, KeyAnswer};
use tests::repo::Repo;
use tests::scripted::Staged;

use crate::HOST;

/// A job whose repository, which is on this host, names the deploy key `app`.
fn spec(repo: &Repo, key: Value) -> Value {
    let mut named = json!({"name": "app"});
    named.as_object_mut().unwrap().extend(key.as_object().unwrap().clone());
    json!({"repository": {"url": repo.path(), "deploy_key": named}, "steps": [{"run": "true"}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_there_is_fetched_before_anything_else() {
    let repo = Repo::new();
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.register("app", "a private half", "a host key");
    let job = staged.script.offer(spec(&repo, json!({}))).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    assert_eq!(staged.script.key_tries(job), [(1, KeyAnswer::Sealed, None, None)]);
    assert_eq!(staged.script.seen().progress[0].1, 1, "it is the first that is told");
}
