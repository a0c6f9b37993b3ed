//! What subscribers are told, and when: an ordinary subscription of the program that measures, by its own clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use shared::clock;
use tokio::sync::oneshot;

use crate::nats::dealt_with;
use crate::wait::eventually;

/// The first event of one kind of each job, since this began to listen; it listens until it is dropped.
pub struct Told {
    first: Arc<Mutex<HashMap<String, Instant>>>,
    /// Dropped to end it.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Told {
    /// Returns when the server at `url` knows the subscription.
    ///
    /// # Panics
    /// When there is no such server.
    pub fn listen(url: &str, kind: &str) -> Self {
        let first = Arc::new(Mutex::new(HashMap::new()));
        let (stop, stopped) = oneshot::channel();
        let (ready, subscribed) = std::sync::mpsc::sync_channel(1);
        let (heard, url, subject) = (Arc::clone(&first), url.to_owned(), format!("windlass.event.*.{kind}"));
        let listening = async move {
            let client = async_nats::connect(url).await.expect("a server");
            let events = client.subscribe(subject).await.expect("a subscription");
            dealt_with(&client).await;
            ready.send(()).expect("somebody waits for it");
            let mut events = events.take_until(stopped);
            while let Some(event) = events.next().await {
                let at = clock::instant();
                if let Some(job) = event.subject.as_str().split('.').nth(2) {
                    locked(&heard).entry(job.to_owned()).or_insert(at);
                }
            }
        };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(listening);
        });
        subscribed.recv().expect("it listens");
        Self { first, stop: Some(stop), thread: Some(thread) }
    }

    /// When that was told of the job, once it is.
    ///
    /// # Panics
    /// When it isn't within that time.
    pub fn until(&self, jobs: &[&str], within: Duration) -> Vec<Instant> {
        eventually(within, &format!("{} jobs are told of", jobs.len()), || {
            let first = locked(&self.first);
            jobs.iter().map(|job| first.get(*job).copied()).collect()
        })
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It may have panicked; whoever waits for what it hears has been told by then.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn locked(first: &Mutex<HashMap<String, Instant>>) -> MutexGuard<'_, HashMap<String, Instant>> {
    first.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::clock;

    use super::Told;
    use crate::nats::{Nats, Version, dealt_with};

    #[tokio::test]
    async fn the_first_event_of_a_kind_counts() {
        const WITHIN: Duration = Duration::from_secs(20);
        let server = Nats::start(Version::Installed).expect("one is installed");
        let told = Told::listen(&server.url(), "started");
        let client = server.client().await;
        let publish = async |subject: &'static str| {
            client.publish(subject, "".into()).await.expect("it is sent");
            dealt_with(&client).await;
        };
        publish("windlass.event.a.queued").await;
        let before = clock::instant();
        publish("windlass.event.a.started").await;
        let first = told.until(&["a"], WITHIN);
        assert!(first[0] >= before, "the event of another kind doesn't count");
        publish("windlass.event.a.started").await;
        publish("windlass.event.b.started").await;
        let both = told.until(&["a", "b"], WITHIN);
        assert!(both[0] == first[0] && both[1] > both[0], "a repetition doesn't count");
    }
}
