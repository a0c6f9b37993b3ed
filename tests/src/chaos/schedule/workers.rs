//! The windows in which only workers and their ways are troubled, so that their leases run out.
//!
//! In each of them one worker's way is cut or stalled for longer than a lease, and nothing else happens to that worker, so that
//! it runs on what it has. Another one, the heir, is troubled for moments only, so that somebody is there to take what is given
//! up.

use std::time::Duration;

use super::{LASTS_MAX, Plan, Planned, REST};
use crate::chaos::history::{Kind, Target};

/// Every second of these is the workers' alone.
pub const WINDOW: Duration = Duration::from_secs(30);
/// How far into such a window the long cut begins: late enough for the leases that others' troubles have begun anew, and for
/// jobs to be there.
const CUT_AFTER_MS: (u64, u64) = (4_000, 6_000);
/// How long it lasts. A lease is 15 s long.
pub const CUT_MS: (u64, u64) = (20_000, 24_000);
/// The longest trouble of the heir.
pub const HEIRS_MAX: Duration = Duration::from_secs(3);

/// A window that is the workers' alone.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    begins: Duration,
    /// When the long cut begins; until then nothing does, so that jobs come to be under way everywhere.
    troubled_from: Duration,
    /// The worker that is cut off for long; none where the run ends before.
    victim: Option<usize>,
    heir: Option<usize>,
}

impl Plan {
    /// Says which windows are the workers' alone, and plans their long cuts, where the run is long enough for them.
    pub fn leave_to_workers(&mut self, from_the_first: bool) {
        let mut begins = if from_the_first { Duration::ZERO } else { WINDOW };
        while begins < self.lasts {
            let victim = self.index(self.size.workers);
            let heir = Some((victim + 1) % self.size.workers).filter(|heir| *heir != victim);
            let at = begins + Duration::from_millis(self.between(CUT_AFTER_MS));
            let lasts = Duration::from_millis(self.between(CUT_MS));
            let kind = [Kind::Cut, Kind::Stall][self.index(2)];
            if at + lasts <= self.lasts {
                let target = Target::WorkersWay(victim);
                self.planned.push(Planned { at, lasts, kind, target, by: Duration::ZERO });
                self.windows.push(Window { begins, troubled_from: at, victim: Some(victim), heir });
            } else {
                self.windows.push(Window { begins, troubled_from: begins, victim: None, heir: None });
            }
            begins += WINDOW * 2;
        }
    }

    pub fn is_workers_only(&self, at: Duration) -> bool {
        self.windows.iter().any(|window| window.begins <= at && at < window.begins + WINDOW)
    }
}

impl Window {
    /// Whether that may happen to it at that time.
    pub fn admits(&self, at: Duration, end: Duration, target: Target) -> bool {
        let meets = at < self.begins + WINDOW && self.begins < end + REST;
        let is_quiet = self.begins <= at && at < self.troubled_from;
        let is_allowed = worker(target).is_some_and(|worker| Some(worker) != self.victim);
        !meets || (is_allowed && !is_quiet)
    }

    /// How long that target may be troubled from then on, as far as this window says so.
    pub fn longest(&self, at: Duration, target: Target) -> Duration {
        match worker(target) {
            None if at < self.begins => self.begins.saturating_sub(at + REST),
            Some(worker) if Some(worker) == self.victim && at < self.begins => self.begins.saturating_sub(at + REST),
            Some(worker) if Some(worker) == self.heir && at < self.begins + WINDOW => {
                self.begins.saturating_sub(at) + HEIRS_MAX
            }
            _ => LASTS_MAX,
        }
    }
}

/// Whether a trouble of that befalls workers alone.
pub fn is_theirs(target: Target) -> bool {
    worker(target).is_some()
}

fn worker(target: Target) -> Option<usize> {
    match target {
        Target::Worker(index) | Target::WorkersWay(index) => Some(index),
        Target::Coordinator(_) | Target::WayToPostgres(_) | Target::WayToNats(_) | Target::WayToCoordinator(_) => None,
        Target::Postgres | Target::Nats => None,
    }
}
