//! Which event may follow which, and where each leaves its job.

use shared::job::StateName;

/// Where a job stands after an event; between two events of one transition nobody sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    Nothing,
    Submitted,
    At(StateName),
    /// A cancel is wanted: while nobody has the job, and while a worker has it.
    CancelWanted,
    CancelWantedLive,
    /// An attempt has failed, and another follows.
    Retried,
    /// Its worker is lost, or has declined it; the same while it is being canceled.
    Lost,
    Declined,
    LetGoCanceling,
}

use StateName::{Assigned, Blocked, Canceled, Canceling, Failed, Queued, Running, Scheduled, Succeeded};

impl Stand {
    /// Where the job stands after an event of that kind; nothing where such an event can't follow.
    pub fn after(self, kind: &str) -> Option<Self> {
        use Stand as S;
        Some(match (self, kind) {
            (S::Nothing, "submitted") => S::Submitted,
            (S::Submitted, "scheduled") => S::At(Scheduled),
            (S::Submitted | S::At(Scheduled | Blocked), "queued") => S::At(Queued),
            // After `queue_timeout`, for want of the key, and where nobody could say for too long whether it is there.
            (S::At(Scheduled | Blocked | Queued), "failed") => S::At(Failed),
            (S::At(Scheduled | Blocked | Queued), "cancel_requested") => S::CancelWanted,
            (S::CancelWanted, "canceled") => S::At(Canceled),

            (S::At(Queued), "assigned") => S::At(Assigned),
            (S::At(Assigned), "key_try" | "checked_out") => S::At(Assigned),
            (S::At(Assigned), "blocked") => S::At(Blocked),
            (S::At(Assigned), "scheduled") => S::At(Scheduled),
            (S::At(Assigned), "started") => S::At(Running),
            (S::At(Running), "step_started" | "step_finished") => S::At(Running),

            // The worker's last word may come without those before it: it died, and its next start tells the outcome alone.
            (S::At(Assigned | Running), "succeeded") => S::At(Succeeded),
            (S::At(Assigned | Running) | S::Lost, "failed") => S::At(Failed),
            (S::At(Assigned | Running) | S::Lost, "retried") => S::Retried,
            (S::Retried, "queued") => S::At(Queued),
            (S::Retried, "scheduled") => S::At(Scheduled),
            (S::At(Assigned | Running), "worker_lost") => S::Lost,
            (S::At(Assigned | Running), "declined") => S::Declined,
            (S::Declined, "queued") => S::At(Queued),

            (S::At(Assigned | Running | Canceling), "cancel_requested") => S::CancelWantedLive,
            (S::CancelWantedLive, "canceling") => S::At(Canceling),
            (S::At(Canceling), "key_try" | "checked_out" | "step_started" | "step_finished") => S::At(Canceling),
            (S::At(Canceling), "declined" | "worker_lost" | "late_report") => S::LetGoCanceling,
            (S::At(Canceling) | S::LetGoCanceling, "canceled") => S::At(Canceled),

            (S::At(Succeeded | Failed | Canceled), "late_report") => self,
            _ => return None,
        })
    }

    /// Where the job stands after an event that couldn't follow: as if it could.
    pub fn forced(self, kind: &str) -> Self {
        let states = StateName::ALL.into_iter();
        let named = states.map(|state| (state.as_str(), state)).chain([("started", Running)]);
        let found = named.into_iter().find(|(name, _)| *name == kind);
        found.map_or(self, |(_, state)| Self::At(state))
    }

    /// The state in which the job is seen; none in the middle of a transition.
    pub fn seen(self) -> Option<StateName> {
        match self {
            Self::At(state) => Some(state),
            Self::Nothing | Self::Submitted | Self::CancelWanted | Self::CancelWantedLive => None,
            Self::Retried | Self::Lost | Self::Declined | Self::LetGoCanceling => None,
        }
    }
}

/// Whether an event of that kind ends a job.
pub fn is_terminal(kind: &str) -> bool {
    matches!(kind, "succeeded" | "failed" | "canceled")
}
