//! The deadline of an attempt that must not outlive its lease: a timer of the kernel that the worker moves on and the
//! keeper looks at.
//!
//! Both hold the same timer. It counts an absolute time of the machine's monotonic clock, so that neither a worker that
//! stands still nor one that comes late makes the deadline later than it was meant, and the keeper needs nobody to notice
//! that it has passed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use shared::clock;
use shared::wire::LEASE;

/// How long before the end of its lease an attempt is killed: its processes are gone before the next attempt begins.
const MARGIN: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct Lifeline {
    timer: TimerFd,
    /// What the timer counts from.
    sent: Mutex<Instant>,
}

impl Lifeline {
    /// A deadline for an attempt whose claim was sent at `sent`: 2 s before the lease that it got would end.
    pub fn from(sent: Instant) -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        set(&timer, sent)?;
        Ok(Self { timer, sent: Mutex::new(sent) })
    }

    /// A heartbeat that was sent at `sent` has renewed the lease.
    pub fn renew(&self, sent: Instant) {
        // The time is whole after any panic.
        let mut latest = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent > *latest {
            match set(&self.timer, sent) {
                Ok(()) => *latest = sent,
                // The attempt ends early, which is safe.
                Err(error) => tracing::error!(%error, "moving the deadline of an attempt"),
            }
        }
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

fn set(timer: &TimerFd, sent: Instant) -> io::Result<()> {
    let at = clock::monotonic(sent + LEASE.saturating_sub(MARGIN));
    Ok(timer.set(Expiration::OneShot(TimeSpec::from_duration(at)), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
}
