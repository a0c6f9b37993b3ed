//! The deploy key of one attempt: how it is fetched, and what it comes to when it can't be.
//!
//! [`policy`] decides after each try what is next, without a clock or a bus; [`fetcher`] makes the tries and tells of
//! them. The runner starts both ([`fetcher::supervise`]); the attempt's work listens through [`Fetching`].

use shared::job::KeyAnswer;
use shared::secret::Secret;
use shared::time::Period;
use tokio::sync::mpsc;

pub mod fetcher;
pub mod policy;

/// A deploy key in the worker's memory, which is the only place where it is in the clear.
#[derive(Debug)]
pub struct FetchedKey {
    /// In OpenSSH's own format.
    pub private_key: Secret,
    /// The host keys that count, as a `known_hosts` file.
    pub known_hosts: String,
}

/// What the fetcher tells the attempt's work.
#[derive(Debug)]
pub enum Told {
    Try(KeyTry),
    /// The last that is told.
    Over(Fetched),
}

/// One try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTry {
    /// From 1; those that nobody answered have a count of their own.
    pub number: u32,
    pub answer: KeyAnswer,
    /// At most [`WHY_BYTES_MAX`] bytes.
    pub why: Option<String>,
    pub next_in: Option<Period>,
}

/// What the fetching came to.
#[derive(Debug)]
pub enum Fetched {
    Key(FetchedKey),
    /// It isn't registered, and the job shall wait for it elsewhere.
    Park,
    /// It isn't registered, and the job shall fail.
    Missing,
    Denied {
        why: String,
    },
    /// Nobody could say for too long.
    GiveBack,
}

/// Where the attempt's work hears of the fetching. Dropping it ends the fetching at once; closed without [`Told::Over`], the
/// fetcher is gone for good.
pub type Fetching = mpsc::Receiver<Told>;

/// The longest reason that is told of a try: 500 bytes.
pub const WHY_BYTES_MAX: usize = 500;

/// `why`, cut where it is too long.
fn bounded(mut why: String) -> String {
    if why.len() > WHY_BYTES_MAX {
        why.truncate(why.floor_char_boundary(WHY_BYTES_MAX));
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_at_a_character() {
        assert_eq!(bounded("short".to_owned()), "short");
        let cut = bounded(format!("x{}", "é".repeat(WHY_BYTES_MAX)));
        assert_eq!(cut.len(), WHY_BYTES_MAX - 1);
        assert!(cut.ends_with('é'));
    }
}
