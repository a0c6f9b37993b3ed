//! What is left over when nothing is to be done any more: each thing that should be gone is waited for, and written down if it
//! stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use async_nats::jetstream;
use futures_util::TryStreamExt;
use serde_json::Value;
use shared::clock;
use tokio::time::timeout;

use super::{Patience, Site, stored};
use crate::chaos::history::{End, Id};
use crate::process::{children, command_lines};
use crate::spooled;
use crate::wait::between_looks;

/// How long offers are waited for: twice the time after which one that a worker took without a word is given to another.
const OFFERS_WITHIN: Duration = Duration::from_secs(20);
/// How long processes are waited for once no job runs any more.
const PROCESSES_WITHIN: Duration = Duration::from_secs(10);
/// How long NATS may take to say what is there.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The stream of offers.
const OFFERS: &str = "WINDLASS_OFFERS";

/// What is there after the last job has ended, or the patience has. Deaths, measures and slots are for others to say.
pub fn of(site: &Site, Patience { ended, settled }: Patience) -> End {
    let url = &site.database;
    let within = |probe: &mut dyn FnMut() -> Vec<String>| left(settled, probe);
    End {
        unfinished: left(ended, || stored::unfinished(url)),
        workers: site.workers.iter().map(|worker| identity(&worker.data_dir).into_iter().collect()).collect(),
        processes: left(settled.min(PROCESSES_WITHIN), || processes(site)),
        files: within(&mut || site.workers.iter().flat_map(|worker| files(&worker.data_dir)).collect()),
        unpublished: left(settled, || stored::unpublished(url)),
        gaps: stored::gaps(url),
        offers: left(OFFERS_WITHIN, || offers(&site.nats)),
        rows: within(&mut || stored::strays(url, &site.addresses)),
        ..End::default()
    }
}

/// What `probe` still finds after `deadline`, or nothing as soon as it finds nothing.
pub fn left<T>(deadline: Duration, mut probe: impl FnMut() -> Vec<T>) -> Vec<T> {
    let begun = clock::instant();
    loop {
        let found = probe();
        if found.is_empty() || begun.elapsed() >= deadline {
            return found;
        }
        between_looks();
    }
}

/// The worker's id, if it has enrolled.
fn identity(data_dir: &Path) -> Option<Id> {
    let text = fs::read_to_string(data_dir.join("worker/identity.json")).ok()?;
    let identity: Value = serde_json::from_str(&text).expect("an identity");
    Some(Id(identity["worker"].as_str().expect("its id").to_owned()))
}

/// What jobs have left running, and the keepers: those of our workers, and of the same program those that no worker has any
/// more.
fn processes(site: &Site) -> Vec<String> {
    let lines = command_lines();
    let named = |pid: i32| {
        let line = lines.iter().find(|(other, _)| *other == pid).map(|(_, line)| line.as_slice()).unwrap_or_default();
        let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        format!("{pid} {}", words.collect::<Vec<_>>().join(" ").trim_end())
    };
    let workers = || site.workers.iter().filter_map(|worker| worker.pid);
    let program = workers().find_map(program);
    let ours: Vec<i32> = workers().flat_map(children).collect();
    let is_keeper = |line: &[u8]| line.split(|byte| *byte == 0).nth(1) == Some(b"keeper");
    let orphaned = |pid: i32| self::program(pid) == program && parent(pid).and_then(self::program) != program;
    let keepers = lines.iter().filter(|(pid, line)| is_keeper(line) && (ours.contains(pid) || orphaned(*pid)));
    let mut found: Vec<i32> = keepers.map(|(pid, _)| *pid).chain(site.mark.carriers()).collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(named).collect()
}

fn program(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// What is in a worker's spool, and the directories of attempts.
fn files(data_dir: &Path) -> Vec<String> {
    let places = ["worker/agents", "work"].map(|place| data_dir.join(place));
    let entries = places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let spool = spooled::names(data_dir).into_iter().map(|name| data_dir.join("worker/spool").join(name));
    let left = entries.map(|entry| entry.path()).chain(spool);
    let mut found: Vec<String> = left.map(|path| path.display().to_string()).collect();
    found.sort();
    found
}

/// The subjects of the offers that wait in their stream, and what the consumers say that should deliver them; nothing where no
/// offer is in it. A stream that isn't there, or doesn't say, is no empty one.
fn offers(nats: &str) -> Vec<String> {
    let url = nats.to_owned();
    let asking = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let asked = async move {
            let client = async_nats::connect(url).await.expect("a server");
            let stream = match jetstream::new(client).get_stream(OFFERS).await {
                Ok(stream) => stream,
                Err(error) => return vec![format!("{OFFERS}: {error}")],
            };
            let subjects = stream.info_with_subjects(">").await.expect("the subjects");
            let subjects: Vec<_> = subjects.try_collect().await.expect("the subjects");
            if subjects.is_empty() {
                return subjects.into_iter().map(|(subject, _)| subject).collect();
            }
            let consumers: Vec<_> = stream.consumers().try_collect().await.expect("the consumers");
            let busy = consumers.iter().filter(|consumer| consumer.num_pending > 0 || consumer.num_ack_pending > 0);
            let busy = busy.map(|consumer| {
                format!(
                    "{} has {} to deliver, {} unacknowledged, {} pulls",
                    consumer.name, consumer.num_pending, consumer.num_ack_pending, consumer.num_waiting
                )
            });
            subjects.into_iter().map(|(subject, _)| subject).chain(busy).collect()
        };
        runtime.block_on(async { timeout(ANSWER_WITHIN, asked).await.expect("an answer of NATS in time") })
    });
    asking.join().expect("an answer")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::jetstream::{self, stream};

    use super::{OFFERS, left, offers};
    use crate::nats::{Nats, Version};

    #[test]
    fn what_stays_is_returned_and_what_goes_is_not() {
        let mut there = vec![2, 1];
        let going = left(Duration::from_secs(20), || {
            there.pop();
            there.clone()
        });
        assert_eq!(going, [0; 0]);
        assert_eq!(left(Duration::ZERO, || vec![7]), [7]);
    }

    #[tokio::test]
    async fn a_stream_that_is_not_there_is_no_empty_one() {
        let nats = Nats::start(Version::Installed).expect("one is installed");
        let missing = offers(&nats.url());
        assert!(matches!(&*missing, [entry] if entry.starts_with(OFFERS)), "{missing:?}");
        let context = jetstream::new(nats.client().await);
        let subjects = vec!["o.>".to_owned()];
        let config = stream::Config { name: OFFERS.to_owned(), subjects, ..stream::Config::default() };
        context.create_stream(config).await.expect("a stream");
        assert_eq!(offers(&nats.url()), [""; 0]);
        context.publish("o.a", "".into()).await.expect("a message sent").await.expect("it is stored");
        assert_eq!(offers(&nats.url()), ["o.a"]);
    }
}
