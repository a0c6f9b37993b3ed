//! What each replica says of each job in the end.

use std::time::Duration;

use crate::chaos::history::View;
use crate::chaos::load::seen;
use crate::http::Client;
use crate::wait::eventually;

/// How long a page may take: a replica may have lost its store a moment ago.
const PAGE_WITHIN: Duration = Duration::from_mins(2);

/// Each job, as each of these replicas lists it.
///
/// # Panics
/// When one doesn't answer, or otherwise than with a page.
pub fn of(replicas: &[Client]) -> Vec<View> {
    replicas.iter().enumerate().flat_map(|(replica, client)| listed(replica, client)).collect()
}

fn listed(replica: usize, client: &Client) -> Vec<View> {
    let (mut views, mut path) = (Vec::new(), "/api/v1/jobs?limit=1000".to_owned());
    loop {
        let page = eventually(PAGE_WITHIN, &format!("a page of replica {replica}"), || {
            let answer = client.try_send("GET", &path, &[], b"").ok().filter(|answer| answer.status != 503)?;
            assert_eq!(answer.status, 200, "replica {replica}, asked for {path}: {}", answer.text);
            Some(answer.json)
        });
        views.extend(page["jobs"].as_array().expect("a page has jobs").iter().map(|job| {
            let seen = seen(job);
            let attempt = seen.attempt.expect("a job has an attempt");
            View { replica, job: seen.id, state: seen.state, attempt, outcome: seen.outcome }
        }));
        let Some(cursor) = page["next_cursor"].as_str() else { return views };
        path = format!("/api/v1/jobs?limit=1000&cursor={cursor}");
    }
}
