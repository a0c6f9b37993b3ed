//! An attempt's log: what its steps write and what Windlass has to say about it, in the order in which it was read.
//!
//! The way of a byte: pipe → [`mask`] → tap → [`segment`] → [`budget`] → [`chunks`] → [`sender`]. [`Log`] is the place
//! where the streams meet and from which the sender takes. All of it is bounded: without room the pipes aren't read.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use shared::clock;
use shared::id::{Attempt, JobId};
use shared::log::{LogSummary, Segment, Stream};
use tokio::sync::{Notify, mpsc};

use budget::Budget;
use chunks::{Chunker, Sized, own_line};
use segment::Piece;

pub(crate) mod budget;
pub(crate) mod chunks;
pub mod mask;
pub mod pump;
pub(crate) mod segment;
pub mod sender;

/// Where the steps' output goes besides the log, masked and uncut, in the order of each stream. A full one makes the
/// step wait.
pub type Tap = mpsc::Sender<(Stream, Bytes)>;

/// The most bytes, as JSON, that wait to be sent before the pipes aren't read any more: 4 MiB.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// From how many bytes on, as JSON, nothing more is waited for: 256 KiB.
const PRESSING_BYTES: usize = 256 * 1024;

/// One attempt's log. Clones are the same log.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// Chunks have been taken away.
    room: Notify,
    /// Something has been added, or the log is finished.
    more: Notify,
}

struct State {
    budget: Budget,
    chunker: Chunker,
    waiting: VecDeque<Sized>,
    waiting_bytes: usize,
    finished: bool,
    /// The coordinator takes nothing more of this attempt.
    refused: bool,
}

impl Log {
    /// An empty log.
    pub fn new(job: JobId, attempt: Attempt) -> Self {
        let state = State {
            budget: Budget::default(),
            chunker: Chunker::new(job, attempt),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            finished: false,
            refused: false,
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), room: Notify::new(), more: Notify::new() }) }
    }

    /// Says something in Windlass's own name.
    pub fn say(&self, step: Option<u32>, text: &str) {
        let mut state = self.state();
        state.take(own_line(clock::now(), step, text));
        drop(state);
        self.inner.more.notify_waiters();
    }

    /// Adds what was read of a step's stream, and empties `pieces`.
    pub fn put(&self, step: Option<u32>, stream: Stream, pieces: &mut Vec<Piece>) {
        let mut state = self.state();
        for Piece { at, text } in pieces.drain(..) {
            state.take(Segment { at, step, stream, text });
        }
        drop(state);
        self.inner.more.notify_waiters();
    }

    /// Waits until there is room for more.
    pub async fn room(&self) {
        self.until(&self.inner.room, |state| state.waiting_bytes < WAITING_BYTES_MAX || state.refused).await;
    }

    /// Nothing more comes: what the log amounts to in the end. Whatever is added later is lost.
    pub fn finish(&self) -> LogSummary {
        let mut state = self.state();
        state.finish();
        let summary = state.chunker.summary();
        drop(state);
        self.inner.more.notify_waiters();
        summary
    }

    /// Waits until there is something to send; false when there never will be again.
    async fn has_more(&self) -> bool {
        let settled = |state: &mut State| state.finished || state.has_more();
        self.until(&self.inner.more, settled).await;
        self.is_owed()
    }

    /// Whether there is something to send.
    fn is_owed(&self) -> bool {
        self.state().has_more()
    }

    /// Waits until there is so much to send that it shouldn't wait for more.
    async fn is_pressing(&self) {
        self.until(&self.inner.more, |state| state.finished || state.waiting_bytes >= PRESSING_BYTES).await;
    }

    /// Takes the next chunks of at most `bytes_max` in JSON.
    fn next_batch(&self, bytes_max: usize) -> Vec<Sized> {
        let mut state = self.state();
        let open = state.chunker.close();
        state.wait_for_sending(open);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(next) = state.waiting.front()
            && (bytes + next.json <= bytes_max || batch.is_empty())
        {
            bytes += next.json;
            batch.extend(state.waiting.pop_front());
        }
        state.waiting_bytes = state.waiting_bytes.saturating_sub(bytes);
        batch
    }

    /// Puts chunks back that are to be sent again.
    fn put_back(&self, batch: Vec<Sized>) {
        let mut state = self.state();
        if !state.refused {
            for sized in batch.into_iter().rev() {
                state.waiting_bytes += sized.json;
                state.waiting.push_front(sized);
            }
        }
    }

    /// A batch is dealt with.
    fn stored(&self) {
        self.inner.room.notify_waiters();
    }

    /// The coordinator takes nothing more: the steps write on, and it goes nowhere.
    fn refuse(&self) {
        let mut state = self.state();
        state.refused = true;
        state.waiting.clear();
        state.waiting_bytes = 0;
        drop(state);
        self.inner.room.notify_waiters();
    }

    async fn until(&self, change: &Notify, mut is_so: impl FnMut(&mut State) -> bool) {
        loop {
            let changed = change.notified();
            tokio::pin!(changed);
            // From here on a change wakes us, also one that comes while we look.
            changed.as_mut().enable();
            if is_so(&mut self.state()) {
                return;
            }
            changed.await;
        }
    }

    /// Each change leaves the state whole, so a panic elsewhere does it no harm.
    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, segment: Segment) {
        if self.finished {
            return;
        }
        let mut full = Vec::new();
        self.budget.take(segment, |segment| full.extend(self.chunker.add(segment)));
        self.wait_for_sending(full);
    }

    fn finish(&mut self) {
        if self.finished {
            return;
        }
        let mut full = Vec::new();
        self.budget.finish(clock::now(), |segment| full.extend(self.chunker.add(segment)));
        full.extend(self.chunker.close());
        self.wait_for_sending(full);
        self.finished = true;
    }

    fn wait_for_sending(&mut self, chunks: impl IntoIterator<Item = Sized>) {
        for chunk in chunks.into_iter().filter(|_| !self.refused) {
            self.waiting_bytes += chunk.json;
            self.waiting.push_back(chunk);
        }
    }

    fn has_more(&self) -> bool {
        !self.refused && (!self.waiting.is_empty() || !self.chunker.is_empty())
    }
}
