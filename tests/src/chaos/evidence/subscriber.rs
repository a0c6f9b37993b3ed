//! A subscriber to the events: it gets what the stream holds from its beginning, in the stream's order, over any number of
//! connections.
//!
//! It reads by the stream's numbers, with an ordered consumer that begins anew behind the last one that was got, whatever
//! breaks. So a message is in its record once, and what is there twice was published twice.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::{self, Context, Message};
use futures_util::StreamExt;
use serde_json::Value;
use shared::cloud_event::CloudEvent;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::chaos::history::{Id, Told};
use crate::chaos::load::now;

/// The stream of events.
const STREAM: &str = "WINDLASS_EVENTS";
/// How long nothing may come before it looks whether there is something.
const QUIET: Duration = Duration::from_secs(1);
/// How long the server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A subscriber that listens.
pub struct Subscriber {
    enough: watch::Sender<bool>,
    told: Receiver<Vec<Told>>,
    listening: JoinHandle<()>,
}

impl Subscriber {
    /// Listens to the server at that URL, whenever that is there.
    pub fn of(url: String) -> Self {
        let (enough, is_enough) = watch::channel(false);
        let (done, told) = sync_channel(1);
        let listening = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let told = runtime.block_on(Listener::default().listen(url, is_enough));
            // Whoever wanted it may have given up.
            let _ = done.send(told);
        });
        Self { enough, told, listening }
    }

    /// All that it got, once that is all that the stream holds.
    ///
    /// # Panics
    /// When it isn't within `deadline`.
    pub fn finish(self, deadline: Duration) -> Vec<Told> {
        self.enough.send_replace(true);
        match self.told.recv_timeout(deadline) {
            Ok(told) => told,
            Err(RecvTimeoutError::Timeout) => panic!("the subscriber hasn't got everything within {deadline:?}"),
            Err(RecvTimeoutError::Disconnected) => {
                let died = self.listening.join().expect_err("it ended without a word");
                std::panic::resume_unwind(died)
            }
        }
    }
}

/// What it has got so far.
#[derive(Default)]
struct Listener {
    told: Vec<Told>,
    /// The stream's number of the last one.
    last: u64,
    /// A number that was missing once: the second time it is gone for good.
    missed: Option<u64>,
}

impl Listener {
    async fn listen(mut self, url: String, enough: watch::Receiver<bool>) -> Vec<Told> {
        let options = ConnectOptions::new().retry_on_initial_connect();
        let client = options.connect(url).await.expect("a client, which connects when it can");
        let context = jetstream::new(client);
        loop {
            match timeout(ANSWER_WITHIN, self.begin(&context)).await {
                Ok(Some(messages)) => {
                    if self.hear(messages, &context, &enough).await {
                        return self.told;
                    }
                }
                // There is no server, or no stream yet.
                Ok(None) => drop(timeout(QUIET, std::future::pending::<()>()).await),
                Err(_) => {}
            }
        }
    }

    /// A consumer that begins behind the last message.
    async fn begin(&mut self, context: &Context) -> Option<Ordered> {
        let stream = context.get_stream(STREAM).await.ok()?;
        let stored = stream.cached_info().state.last_sequence;
        if stored < self.last {
            eprintln!("the stream of events has lost its messages after {stored}, of {}", self.last);
            self.last = stored;
        }
        let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: self.last + 1 };
        let consumer = stream.create_consumer(OrderedConfig { deliver_policy, ..OrderedConfig::default() }).await;
        consumer.ok()?.messages().await.ok()
    }

    /// Takes what comes until it breaks off; whether it is enough, and all is there.
    async fn hear(&mut self, mut messages: Ordered, context: &Context, enough: &watch::Receiver<bool>) -> bool {
        loop {
            match timeout(QUIET, messages.next()).await {
                Ok(Some(Ok(message))) => {
                    if !self.take(&message) {
                        return false;
                    }
                }
                Ok(Some(Err(_)) | None) => return false,
                Err(_) => match timeout(ANSWER_WITHIN, context.get_stream(STREAM)).await {
                    Ok(Ok(stream)) if stream.cached_info().state.last_sequence == self.last => {
                        if *enough.borrow() {
                            return true;
                        }
                    }
                    _ => return false,
                },
            }
        }
    }

    /// Writes a message down that follows the last one; false where one is missing between them.
    fn take(&mut self, message: &Message) -> bool {
        let number = message.info().expect("a message of a stream has a number").stream_sequence;
        if number <= self.last {
            return true;
        }
        if number > self.last + 1 && self.missed != Some(number) {
            self.missed = Some(number);
            return false;
        }
        self.last = number;
        self.told.push(told(&message.payload));
        true
    }
}

fn told(payload: &[u8]) -> Told {
    let whole: Value = serde_json::from_slice(payload).expect("an event is JSON");
    let event: CloudEvent = serde_json::from_value(whole.clone()).expect("an event is a CloudEvent");
    Told {
        at: now(),
        job: Id(event.subject.to_string()),
        seq: event.data.seq,
        kind: event.data.kind.to_string(),
        attempt: event.data.attempt,
        data: whole["data"].clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::jetstream::{self, stream};
    use serde_json::json;

    use super::{STREAM, Subscriber};
    use crate::nats::{Nats, Version};
    use crate::wait::pass;

    const JOB: &str = "01a2015d-3540-743c-808d-27f98e22ce49";

    async fn publish(nats: &Nats, seqs: impl IntoIterator<Item = u64>) {
        let context = jetstream::new(nats.client().await);
        let config =
            stream::Config { name: STREAM.to_owned(), subjects: vec!["e.>".to_owned()], ..stream::Config::default() };
        context.get_or_create_stream(config).await.expect("a stream");
        for seq in seqs {
            let at = "2026-12-01T08:00:01.000000Z";
            let data = json!({"seq": seq, "at": at, "kind": "started", "attempt": 1, "actor": "coordinator", "n": seq});
            let event = json!({
                "specversion": "1.0", "id": format!("{JOB}-{seq}"), "source": "/windlass", "type": "windlass.job.started",
                "subject": JOB, "time": at, "datacontenttype": "application/json", "sequence": "0", "data": data,
            });
            let sent = context.publish("e.a", event.to_string().into()).await.expect("a message sent");
            sent.await.expect("it is stored");
        }
    }

    #[tokio::test]
    async fn what_the_stream_holds_is_got_once_and_in_order_over_any_number_of_servers() {
        let mut nats = Nats::start(Version::Installed).expect("one is installed");
        // There is no stream yet.
        let subscriber = Subscriber::of(nats.url());
        publish(&nats, 1..=300).await;
        nats.stop();
        pass(Duration::from_secs(2), "an outage");
        nats.start_again();
        publish(&nats, 301..=600).await;
        nats.kill();
        nats.start_again();
        // A repeat stays one.
        publish(&nats, [600, 601]).await;
        let told = subscriber.finish(Duration::from_mins(1));
        let seqs: Vec<u64> = told.iter().map(|told| told.seq).collect();
        assert_eq!(seqs, (1..=600).chain([600, 601]).collect::<Vec<_>>());
        assert_eq!((told[6].job.0.as_str(), told[6].kind.as_str(), told[6].attempt), (JOB, "started", 1));
        assert_eq!(told[6].data["n"], 7);
        assert!(told.windows(2).all(|pair| pair[0].at <= pair[1].at));
    }
}
