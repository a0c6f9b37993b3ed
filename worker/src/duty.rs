//! What a worker is to do about offers: which tag sets it may take, and whether it takes anything at all. People pause it,
//! a drain ends it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shared::wire::{Welcome, WorkerMode};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// One worker's duty, as the last welcome and its own process have said it.
pub struct Duty {
    now: watch::Sender<Standing>,
    /// Somebody wants a hello to be said at once.
    pub hello: Notify,
    /// How many hellos have begun, and the number of the last that was answered.
    begun: AtomicU64,
    answered: watch::Sender<u64>,
}

#[derive(Default)]
struct Standing {
    tag_sets: Vec<Vec<String>>,
    paused: bool,
    /// It never takes anything again.
    draining: bool,
    /// Nobody hears it any more.
    revoked: bool,
}

impl Duty {
    /// That of a worker which nobody has welcomed: it may take nothing yet.
    pub fn new() -> Self {
        Self {
            now: watch::Sender::default(),
            hello: Notify::new(),
            begun: AtomicU64::new(0),
            answered: watch::Sender::new(0),
        }
    }

    /// Does as a coordinator says.
    pub fn welcomed(&self, welcome: Welcome) {
        let Welcome { tag_sets, mode, revoked } = welcome;
        let drains = mode == WorkerMode::Draining;
        self.now.send_modify(|now| {
            if drains && !now.draining {
                tracing::info!("a drain was ordered: this worker takes nothing new");
            }
            if !drains && now.paused != (mode == WorkerMode::Paused) {
                tracing::info!(mode = mode.name(), "what people want of this worker has changed");
            }
            now.tag_sets = tag_sets;
            now.paused = mode == WorkerMode::Paused;
            now.draining |= drains;
            now.revoked |= revoked;
        });
    }

    /// Takes nothing new from now on, whatever anybody says; tells the coordinators at once.
    pub fn drain(&self) {
        self.now.send_modify(|now| now.draining = true);
        self.hello.notify_one();
    }

    /// A hello is about to be said: its number.
    pub fn begin_hello(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The hello of that number was answered, and the answer is heeded.
    pub fn end_hello(&self, number: u64) {
        self.answered.send_replace(number);
    }

    /// Has a hello said at once. What is returned waits, at most `within`, until one is answered that wasn't under way
    /// already: that one may have been answered before what there is to hear. Whether there was such an answer.
    pub fn hello_soon(&self, within: Duration) -> impl Future<Output = bool> + Send + use<> {
        let mut answered = self.answered.subscribe();
        let under_way = self.begun.load(Ordering::Acquire);
        self.hello.notify_one();
        async move {
            let heard = timeout(within, answered.wait_for(|number| *number > under_way)).await;
            matches!(heard, Ok(Ok(_)))
        }
    }

    /// Whether it takes nothing new for good.
    pub fn is_draining(&self) -> bool {
        self.now.borrow().draining
    }

    /// Returns once it takes nothing new for good.
    pub async fn draining(&self) {
        // The sender is ours: it isn't gone while we wait.
        let _ = self.now.subscribe().wait_for(|now| now.draining).await;
    }

    /// Whether nobody hears this worker any more.
    pub fn is_revoked(&self) -> bool {
        self.now.borrow().revoked
    }

    /// Returns once nobody hears this worker any more.
    pub async fn revoked(&self) {
        // As above.
        let _ = self.now.subscribe().wait_for(|now| now.revoked).await;
    }

    /// The tag sets whose offers may be taken now; none while nothing may be.
    pub fn tag_sets(&self) -> Option<Vec<Vec<String>>> {
        let now = self.now.borrow();
        (!now.paused && !now.draining).then(|| now.tag_sets.clone())
    }

    /// Whether offers may be taken now.
    pub fn takes_now(&self) -> bool {
        let now = self.now.borrow();
        !now.paused && !now.draining
    }

    /// Waits while it is paused; whether it may take offers after that.
    pub async fn takes(&self) -> bool {
        let mut now = self.now.subscribe();
        now.wait_for(|now| now.draining || !now.paused).await.is_ok_and(|now| !now.draining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(mode: WorkerMode) -> Welcome {
        Welcome { tag_sets: vec![Vec::new()], mode, revoked: false }
    }

    #[tokio::test]
    async fn a_pause_ends_and_a_drain_does_not() {
        let duty = Duty::new();
        duty.welcomed(welcome(WorkerMode::Paused));
        assert!(duty.tag_sets().is_none() && !duty.takes_now());
        duty.welcomed(welcome(WorkerMode::Active));
        assert!(duty.takes().await && duty.takes_now() && duty.tag_sets().is_some());
        duty.welcomed(welcome(WorkerMode::Draining));
        duty.welcomed(welcome(WorkerMode::Active));
        assert!(!duty.takes().await && duty.is_draining());
        assert!(duty.tag_sets().is_none() && !duty.takes_now());
    }
}
