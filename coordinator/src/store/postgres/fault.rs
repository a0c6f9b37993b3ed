//! What became of a statement that failed, decided where it failed: whether it was done, and whether a repeat may do.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::error::DatabaseError;
use tracing::info;

use shared::clock;

use crate::store::Error;

/// How often a statement is tried in all before the database counts as unavailable.
const TRIES_MAX: u32 = 6;
/// From how long after the first try on it isn't tried again: a lock that doesn't come takes a second each time.
const REPEATED_WITHIN: Duration = Duration::from_secs(2);
/// The wait before the second try; doubled for each that follows, and drawn anew between the half and the whole.
const FIRST_WAIT: Duration = Duration::from_millis(5);

/// Why a statement failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing was done, because of what another did at the same time, or on a connection that was dead: a repeat may do.
    Again(String),
    /// The database refuses what was given, whenever it is given.
    Refused(String),
    /// What the caller is told.
    Told(Error),
}

impl Fault {
    /// The same for a caller who gives nothing that can be refused by itself.
    pub(super) fn told(self) -> Error {
        match self {
            Self::Again(why) => Error::Unavailable(why),
            Self::Refused(why) => Error::Corrupt(why),
            Self::Told(error) => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

/// What failed was to change something, and its end is its commit.
pub(super) fn of_write(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Database(refused) => of_answer(refused.as_ref(), |why| Fault::Told(Error::Unknown(why))),
        // It was sent, and no answer came, or none that could be understood.
        _ => Fault::Told(Error::Unknown(error.to_string())),
    }
}

/// What failed was to change nothing, or wasn't committed by its end: in no case was anything done.
pub(super) fn of_read(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Database(refused) => of_answer(refused.as_ref(), Fault::Again),
        // The connection may have been dead for long: another will do, and where there is none that is told.
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => Fault::Again(error.to_string()),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => unavailable(error),
        _ => Fault::Told(Error::Corrupt(error.to_string())),
    }
}

/// What failed was to get a connection: nothing was sent, whatever the server says.
pub(super) fn of_connecting(error: &sqlx::Error) -> Fault {
    unavailable(error)
}

fn unavailable(error: &sqlx::Error) -> Fault {
    Fault::Told(Error::Unavailable(error.to_string()))
}

/// What the server's word means (<https://www.postgresql.org/docs/current/errcodes-appendix.html>). `ended` says what it
/// means that the session was ended under the statement.
fn of_answer(answer: &dyn DatabaseError, ended: fn(String) -> Fault) -> Fault {
    let code = answer.code().unwrap_or_default();
    let why = format!("{} ({code})", answer.message());
    if answer.constraint() == Some("job_events_numbered_once") {
        return Fault::Told(Error::Corrupt(format!("the batch numbers its events from a wrong one on: {why}")));
    }
    match code.as_ref() {
        // Serialization failure, deadlock, a lock that didn't come in time: the statement was rolled back.
        "40001" | "40P01" | "55P03" => Fault::Again(why),
        // Canceled, by the statement timeout as a rule. What is being committed can't be: it was rolled back.
        "57014" => Fault::Told(Error::Unavailable(why)),
        code => match code.get(..2) {
            // A broken connection (08), a server that shuts down or has crashed (57P): it says this also where the
            // statement was committed just before.
            Some("08" | "57") => ended(why),
            // No room, no memory, no connection (53), a file that can't be read (58), a standby (25), a session
            // that was idle in its transaction (25P03): what was begun is rolled back.
            Some("53" | "58" | "25") => Fault::Told(Error::Unavailable(why)),
            // Data that can't be kept (22, 54), a constraint (23, 44), an exception of a trigger (P0).
            Some("22" | "23" | "44" | "54" | "P0") => Fault::Refused(why),
            _ => Fault::Told(Error::Corrupt(why)),
        },
    }
}

/// Repeats `work` while it says [`Fault::Again`], with growing waits, and counts the repeats.
pub(super) async fn retried<T, F, W>(what: &str, retries: &AtomicU64, mut work: W) -> Result<T, Error>
where
    W: FnMut() -> F,
    F: Future<Output = Result<T, Fault>>,
{
    let mut wait = FIRST_WAIT;
    let begun = clock::instant();
    for tried in 1.. {
        match work().await {
            Ok(done) => return Ok(done),
            Err(Fault::Again(why)) if tried < TRIES_MAX && begun.elapsed() < REPEATED_WITHIN => {
                retries.fetch_add(1, Ordering::Relaxed);
                let drawn = jittered(wait);
                info!(verb = what, tried, %why, wait_ms = drawn.as_millis(), "the statement is repeated");
                tokio::time::sleep(drawn).await;
                wait *= 2;
            }
            Err(fault) => return Err(fault.told()),
        }
    }
    Err(Error::Unavailable(format!("{what}: tried {TRIES_MAX} times")))
}

/// Between the half of `wait` and the whole.
fn jittered(wait: Duration) -> Duration {
    let [drawn] = clock::random::<1>();
    wait / 2 + (wait / 2).mul_f64(f64::from(drawn) / f64::from(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(faults: Vec<Fault>) -> (Result<usize, Error>, u64) {
        let (retries, mut faults) = (AtomicU64::new(0), faults.into_iter().enumerate());
        let tried = retried("test", &retries, || {
            let next = faults.next();
            async move { next.map_or(Ok(99), |(_, fault)| Err(fault)) }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        (runtime.block_on(tried), retries.into_inner())
    }

    #[test]
    fn only_what_another_caused_is_repeated_and_not_for_ever() {
        let again = || Fault::Again("deadlock".to_owned());
        assert_eq!(retry(vec![again(), again()]), (Ok(99), 2));
        let unavailable = Err(Error::Unavailable("deadlock".to_owned()));
        assert_eq!(retry(vec![again(); 20]), (unavailable, u64::from(TRIES_MAX) - 1));
        let unknown = Error::Unknown("lost".to_owned());
        assert_eq!(retry(vec![again(), Fault::Told(unknown.clone()), again()]), (Err(unknown), 1));
    }

    #[test]
    fn a_write_without_an_answer_is_unknown_and_a_read_without_one_has_done_nothing() {
        let lost = || sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert!(matches!(of_write(&lost()), Fault::Told(Error::Unknown(_))));
        assert!(matches!(of_read(&lost()), Fault::Again(_)));
        assert!(matches!(of_connecting(&lost()), Fault::Told(Error::Unavailable(_))));
    }
}
