//! The signals with which people and service managers stop us.

use std::time::{Duration, Instant};

use anyhow::Context;
use shared::clock;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A SIGTERM that follows another this soon is the same wish: timeout(1), for one, sends it to its child and then to the
/// child's group. Nobody types it.
const SAME_WITHIN: Duration = Duration::from_millis(500);

/// SIGINT, SIGTERM and SIGHUP, one like the other.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// None where we were started to outlive the terminal, as with `nohup`.
    hangup: Option<Signal>,
    /// When the last SIGTERM came that counted.
    terminated: Option<Instant>,
}

impl Signals {
    /// From here on the signals no longer end the process; those that come before [`Signals::next`] is awaited are kept.
    pub fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("listening for signals");
        let (interrupt, terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
        let hangup = if hangup_is_ignored() { None } else { Some(on(SignalKind::hangup())?) };
        Ok(Self { interrupt, terminate, hangup, terminated: None })
    }

    /// Waits for the next one. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) {
        loop {
            let hangup = async {
                match &mut self.hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = hangup => return,
                _ = self.terminate.recv() => {
                    let now = clock::instant();
                    let same = self.terminated.is_some_and(|last| now.duration_since(last) < SAME_WITHIN);
                    if !same {
                        self.terminated = Some(now);
                        return;
                    }
                }
            }
        }
    }
}

/// Whether whoever started us has set SIGHUP to be ignored; the kernel tells it as a mask in hex (proc(5), `SigIgn`).
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
