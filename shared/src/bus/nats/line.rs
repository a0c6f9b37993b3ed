//! The connection and what is asked over it: one inbox takes all replies, each to its asker. Whatever is sent has a
//! deadline, and while there is no connection nothing is sent at all: a message that waits inside the client for the
//! next connection would speak of a time that is over.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::bus::Link;

/// How long the server or a stream may take to answer. After that the fate of what was said is unknown.
pub const SERVER_WITHIN: Duration = Duration::from_secs(5);
/// How often who waits for a connection looks for one.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a message that nobody answers may take to leave this process.
const SEND_WITHIN: Duration = Duration::from_secs(2);

/// A connection to NATS; clones are the same one.
#[derive(Clone)]
pub struct Line {
    pub client: Client,
    replies: Arc<Replies>,
    /// Grows with every change of the connection's state.
    turns: watch::Receiver<u64>,
}

/// Who waits for which reply.
struct Replies {
    /// What the subject of each reply begins with.
    prefix: String,
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, Asker>>,
}

/// Who waits for a reply.
struct Asker {
    reply: oneshot::Sender<Message>,
    /// How often the connection had broken when the server itself was asked: with the next break its answer is lost.
    breaks: Option<u64>,
}

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    #[error("there is no connection to NATS")]
    Down,
    #[error("nobody listens")]
    NoResponder,
    #[error("no answer in time")]
    TimedOut,
    #[error("the message is too large for the server")]
    TooLarge,
}

/// The tasks of a bus, which end with it.
#[derive(Default)]
pub struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    /// Starts one more.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

impl Line {
    /// The line over a client whose changes of state `turns` counts.
    pub async fn open(client: Client, turns: watch::Receiver<u64>, tasks: &Tasks) -> Result<Self, Unanswered> {
        let prefix = format!("{}.", client.new_inbox());
        let mut incoming = client.subscribe(format!("{prefix}*")).await.map_err(|_| Unanswered::Down)?;
        let replies = Arc::new(Replies { prefix, last: AtomicU64::new(0), waiting: Mutex::default() });
        let takers = replies.clone();
        tasks.spawn(async move {
            while let Some(reply) = incoming.next().await {
                takers.hand_over(reply);
            }
        });
        let line = Self { client, replies, turns };
        tasks.spawn(line.clone().tell_of_breaks());
        Ok(line)
    }

    /// Tells whoever waits for the server's answer over a connection that has broken, until the client has ended.
    async fn tell_of_breaks(self) {
        let (mut turns, mut told) = (self.turns(), 0);
        // A change is told a moment before it is true.
        while !matches!(timeout(LOOK_EVERY, turns.changed()).await, Ok(Err(_))) {
            let breaks = self.link().breaks;
            if breaks != told {
                told = breaks;
                self.replies.held().retain(|_, asker| asker.breaks.is_none_or(|before| before >= breaks));
            }
        }
    }

    /// Whether there is a connection now.
    pub fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// How the connection is and how often it was lost.
    pub fn link(&self) -> Link {
        let connects = self.client.statistics().connects.load(Ordering::Relaxed);
        let up = self.is_up();
        Link { up, fit: true, breaks: if up { connects.saturating_sub(1) } else { connects } }
    }

    /// Changes whenever the connection comes or goes.
    pub fn turns(&self) -> watch::Receiver<u64> {
        self.turns.clone()
    }

    /// Waits until there is a connection.
    pub async fn connected(&self) {
        let mut turns = self.turns();
        while !self.is_up() {
            // A change is told a moment before it is true.
            if let Ok(Err(_)) = timeout(LOOK_EVERY, turns.changed()).await {
                // The client has ended for good: so will whoever waits.
                return std::future::pending().await;
            }
        }
    }

    /// Sends `body` and waits for the first reply, at most `within`. Cancelled, it leaves nothing behind.
    pub async fn ask(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        body: Bytes,
        within: Duration,
    ) -> Result<Message, Unanswered> {
        self.exchange(Waiting::new(&self.replies, None), subject, headers, body, within).await
    }

    /// The same, of the server itself or a stream: what they have said when the connection breaks is lost with it, so
    /// there is nothing to wait for any more.
    pub async fn ask_server(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        body: Bytes,
    ) -> Result<Message, Unanswered> {
        let waiting = Waiting::new(&self.replies, Some(self.link().breaks));
        self.exchange(waiting, subject, headers, body, SERVER_WITHIN).await
    }

    /// Sends `body` to the server itself or a stream, by `deadline` at the latest; what is returned waits for the answer.
    pub async fn begin_asking_server(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Asked<'_>, Unanswered> {
        if !self.is_up() {
            return Err(Unanswered::Down);
        }
        let (waiting, answer) = Waiting::new(&self.replies, Some(self.link().breaks));
        let sending = self.publish(subject, waiting.subject(), headers, body);
        timeout_at(deadline, sending).await.map_err(|_| Unanswered::TimedOut)??;
        Ok(Asked { _waiting: waiting, answer })
    }

    async fn exchange(
        &self,
        (waiting, answer): (Waiting<'_>, oneshot::Receiver<Message>),
        subject: String,
        headers: Option<HeaderMap>,
        body: Bytes,
        within: Duration,
    ) -> Result<Message, Unanswered> {
        if !self.is_up() {
            return Err(Unanswered::Down);
        }
        let exchange = async {
            self.publish(subject, waiting.subject(), headers, body).await?;
            answer.await.map_err(|_| Unanswered::Down)
        };
        heard(timeout(within, exchange).await.map_err(|_| Unanswered::TimedOut)??)
    }

    async fn publish(
        &self,
        subject: String,
        reply: String,
        headers: Option<HeaderMap>,
        body: Bytes,
    ) -> Result<(), Unanswered> {
        let sent = match headers {
            Some(headers) => self.client.publish_with_reply_and_headers(subject, reply, headers, body).await,
            None => self.client.publish_with_reply(subject, reply, body).await,
        };
        sent.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Unanswered::TooLarge,
            PublishErrorKind::Send | PublishErrorKind::InvalidSubject => Unanswered::Down,
        })
    }

    /// Sends what nobody answers, or gives it up where that takes too long.
    pub async fn send(&self, subject: impl Into<String>, headers: Option<HeaderMap>, body: Bytes) {
        let sending = async {
            match headers {
                Some(headers) => self.client.publish_with_headers(subject.into(), headers, body).await,
                None => self.client.publish(subject.into(), body).await,
            }
        };
        match timeout(SEND_WITHIN, sending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a message wasn't sent"),
            Err(_) => tracing::debug!("a message wasn't sent: there is no connection"),
        }
    }

    /// Returns once the server has dealt with all that was sent before, or when it is plain that it hasn't.
    pub async fn settled(&self) {
        let (waiting, echo) = Waiting::new(&self.replies, None);
        let echo = async {
            // A message to ourselves comes back behind everything else.
            let sent = self.client.publish(waiting.subject(), Bytes::new()).await;
            if sent.is_ok() {
                let _ = echo.await;
            }
        };
        let _ = timeout(SEND_WITHIN, echo).await;
    }
}

/// What the server was asked, until its answer is there or nobody waits for it any more.
pub struct Asked<'a> {
    _waiting: Waiting<'a>,
    answer: oneshot::Receiver<Message>,
}

impl Asked<'_> {
    /// The answer, if it comes by `deadline`.
    pub async fn reply(self, deadline: Instant) -> Result<Message, Unanswered> {
        let reply = timeout_at(deadline, self.answer).await.map_err(|_| Unanswered::TimedOut)?;
        heard(reply.map_err(|_| Unanswered::Down)?)
    }
}

fn heard(reply: Message) -> Result<Message, Unanswered> {
    if reply.status == Some(StatusCode::NO_RESPONDERS) { Err(Unanswered::NoResponder) } else { Ok(reply) }
}

impl Replies {
    fn hand_over(&self, reply: Message) {
        let number = reply.subject.strip_prefix(self.prefix.as_str()).and_then(|number| number.parse().ok());
        let asker = number.and_then(|number: u64| self.held().remove(&number));
        if let Some(asker) = asker {
            // It may have stopped waiting just now.
            let _ = asker.reply.send(reply);
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u64, Asker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One asker's place among those who wait; given up when dropped.
struct Waiting<'a> {
    replies: &'a Replies,
    number: u64,
}

impl<'a> Waiting<'a> {
    fn new(replies: &'a Replies, breaks: Option<u64>) -> (Self, oneshot::Receiver<Message>) {
        let number = replies.last.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        replies.held().insert(number, Asker { reply, breaks });
        (Self { replies, number }, answer)
    }

    fn subject(&self) -> String {
        format!("{}{}", self.replies.prefix, self.number)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.replies.held().remove(&self.number);
    }
}
