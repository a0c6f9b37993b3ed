//! When the cluster is calm again: every process serves, the shards are spread, and every worker's present start is known.

use std::fs;
use std::time::Duration;

use shared::clock;

use super::{Arena, identity, is_due};
use crate::wait::eventually;

/// How long that may take when nothing troubles it any more: longer than any lease, any backoff and any repeat.
const CALM_WITHIN: Duration = Duration::from_secs(90);
/// How often the database is asked.
const EVERY: Duration = Duration::from_millis(250);

const OWNERS: &str = "SELECT c.address, count(*)::text FROM shards s JOIN coordinators c ON c.id = s.owner \
    WHERE c.expires_at > clock_timestamp() GROUP BY c.id, c.address ORDER BY c.address";
const STARTS: &str = "SELECT id::text, start::text FROM workers WHERE seen_at IS NOT NULL";
const SHARDS: usize = 256;

impl Arena {
    /// Waits until every process serves, every coordinator owns shards, none is without an owner, and every worker's
    /// present start is known.
    ///
    /// # Errors
    /// What is missing after a minute and a half.
    pub fn until_calm(&mut self) -> Result<(), String> {
        let (begun, mut asked) = (clock::instant(), None);
        eventually(CALM_WITHIN * 2, "the cluster is calm or won't be", || {
            self.look();
            if !is_due(&mut asked, EVERY) {
                return None;
            }
            match self.missing() {
                None => Some(Ok(())),
                Some(missing) => (begun.elapsed() > CALM_WITHIN).then_some(Err(missing)),
            }
        })
    }

    /// What keeps the cluster from being calm.
    fn missing(&self) -> Option<String> {
        let down: Vec<&str> =
            self.parts().iter().filter(|part| part.ready().is_none()).map(|part| part.recipe.name.as_str()).collect();
        if !down.is_empty() {
            return Some(format!("{down:?} don't serve"));
        }
        let rows = |query| self.database().try_rows(query);
        let (owners, starts) = match (rows(OWNERS), rows(STARTS)) {
            (Ok(owners), Ok(starts)) => (owners, starts),
            (Err(error), _) | (_, Err(error)) => return Some(format!("no answer from Postgres: {error}")),
        };
        let mut there = self.coordinator_urls();
        there.sort();
        let named: Vec<String> = owners.iter().map(|row| row[0].clone()).collect();
        let owned: usize = owners.iter().map(|row| row[1].parse::<usize>().expect("a number")).sum();
        if named != there || owned != SHARDS {
            return Some(format!("shards aren't spread: {owners:?}"));
        }
        let own = self.data_dirs().into_iter().map(|data| {
            let start = fs::read_to_string(data.join("worker/starts")).unwrap_or_default();
            vec![identity(&data).unwrap_or_default(), start.trim().to_owned()]
        });
        let unknown: Vec<Vec<String>> = own.filter(|start| !starts.contains(start)).collect();
        (!unknown.is_empty()).then(|| format!("these starts of workers aren't known: {unknown:?}, only {starts:?}"))
    }
}
