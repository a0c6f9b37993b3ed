//! From the way a job ended to the code that `run` ends with.

use shared::job::{EventKind, Exit, Failure};

use crate::exit;

/// Added to the number of the signal that a command died of, as a shell does.
const SIGNAL_BASE: u8 = 128;

/// The code for a job whose last event is `end`.
pub fn of(end: &EventKind) -> u8 {
    match end {
        EventKind::Succeeded {} => 0,
        EventKind::Canceled { .. } => exit::CANCELED,
        EventKind::Failed { failure: Failure::StepFailed { exit: Exit::ExitCode(code), .. }, .. } => *code,
        EventKind::Failed { failure: Failure::StepFailed { exit: Exit::Signal(signal), .. }, .. } => {
            SIGNAL_BASE.saturating_add(*signal)
        }
        EventKind::Failed { failure: Failure::TimedOut { .. }, .. } => exit::TIMED_OUT,
        _ => exit::NOT_RUN,
    }
}

#[cfg(test)]
mod tests {
    use shared::clock;
    use shared::id::Actor;
    use shared::job::{Canceled, EventKind, Exit, Failure, Limit};

    use super::of;

    fn failed(failure: Failure) -> u8 {
        of(&EventKind::Failed { failure, stop: None, offer: None })
    }

    fn step(exit: Exit) -> u8 {
        failed(Failure::StepFailed { step: 0, exit, message: None })
    }

    #[test]
    fn a_command_that_ran_gives_its_own_code() {
        assert_eq!(of(&EventKind::Succeeded {}), 0);
        assert_eq!([7, 126, 127, 255].map(|code| step(Exit::ExitCode(code))), [7, 126, 127, 255]);
        assert_eq!([9, 15].map(|signal| step(Exit::Signal(signal))), [137, 143]);
    }

    #[test]
    fn a_limit_a_cancel_and_our_own_failures_have_codes_of_their_own() {
        let canceled = Canceled { by: Actor::Client("run".into()), at: clock::now(), why: None, confirmed: true };
        assert_eq!(of(&EventKind::Canceled { canceled, offer: None }), 130);
        assert_eq!(failed(Failure::TimedOut { limit: Limit::Job }), 124);
        let message = || "no".to_owned();
        let ours = [
            Failure::CheckoutFailed { transient: false, message: message() },
            Failure::DeployKeyMissing { message: message() },
            Failure::DeployKeyDenied { message: message() },
            Failure::WorkerLost { message: message() },
            Failure::Expired,
            Failure::Internal { message: message() },
        ];
        assert_eq!(ours.map(failed), [125; 6]);
    }
}
