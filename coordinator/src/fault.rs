//! Places where a test can make this process fail. Without the cargo feature `faults`, which no release has, each is
//! nothing at all.
//!
//! A test within the process arms a point by its name; for a process of its own it names points in the variable
//! `WINDLASS_FAULTS`, as `point=times` for a panic, `point=times!` for the end of the process without another word, and
//! `point=times~` for something that gets lost ([`is_lost`]), separated by commas.

#[cfg(feature = "faults")]
use std::collections::HashMap;
#[cfg(feature = "faults")]
use std::sync::{Mutex, PoisonError};
#[cfg(feature = "faults")]
use std::time::Duration;

/// What an armed point does.
#[cfg(feature = "faults")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Panic,
    /// The process ends at once, as killed.
    Exit,
    /// What the point is about gets lost.
    Lose,
    /// What the point is about waits for as long as that is armed.
    Hold,
    /// Nothing, but how often it is passed is counted.
    Count,
}

/// How often is looked whether a point is still held.
#[cfg(feature = "faults")]
const HOLD_LOOK_EVERY: Duration = Duration::from_millis(1);

#[cfg(feature = "faults")]
static ARMED: Mutex<Option<HashMap<String, (Fault, u32)>>> = Mutex::new(None);

/// Makes the next `times` passes of `point` panic.
#[cfg(feature = "faults")]
pub fn arm(point: &'static str, times: u32) {
    with_armed(|armed| armed.insert(point.to_owned(), (Fault::Panic, times)));
}

/// Makes the next `times` passes of `point` fail in that way.
#[cfg(feature = "faults")]
pub fn arm_with(point: &'static str, fault: Fault, times: u32) {
    with_armed(|armed| armed.insert(point.to_owned(), (fault, times)));
}

/// Passes a point: panics, or ends the process, where a test has armed it.
#[cfg(feature = "faults")]
#[expect(clippy::panic, reason = "panicking is what an armed point is for")]
pub(crate) fn point(name: &'static str) {
    match strike(name, |fault| !matches!(fault, Fault::Lose | Fault::Hold)) {
        Some(Fault::Panic) => panic!("the fault point {name} was armed"),
        Some(Fault::Exit) => {
            // As after SIGKILL nothing is written, closed or told any more.
            std::process::abort();
        }
        Some(Fault::Lose | Fault::Hold | Fault::Count) | None => {}
    }
}

/// Passes a point: nothing happens.
#[cfg(not(feature = "faults"))]
pub(crate) fn point(_name: &'static str) {}

/// Whether what this point is about gets lost, because a test wants it so.
#[cfg(feature = "faults")]
pub(crate) fn is_lost(name: &'static str) -> bool {
    strike(name, |fault| fault == Fault::Lose).is_some()
}

/// Nothing gets lost here.
#[cfg(not(feature = "faults"))]
pub(crate) fn is_lost(_name: &'static str) -> bool {
    false
}

/// Waits for as long as a test holds this point.
#[cfg(feature = "faults")]
pub(crate) async fn hold(name: &'static str) {
    while strike(name, |fault| fault == Fault::Hold).is_some() {
        tokio::time::sleep(HOLD_LOOK_EVERY).await;
    }
}

/// How often a point was passed since it was armed with `u32::MAX` times; one that is held counts each look.
#[cfg(feature = "faults")]
pub fn passes(point: &str) -> u32 {
    with_armed(|armed| armed.get(point).map_or(0, |(_, left)| u32::MAX - left))
}

/// Nothing is held here.
#[cfg(not(feature = "faults"))]
pub(crate) fn hold(_name: &'static str) -> std::future::Ready<()> {
    std::future::ready(())
}

#[cfg(feature = "faults")]
fn strike(name: &str, wanted: impl Fn(Fault) -> bool) -> Option<Fault> {
    with_armed(|armed| {
        let (fault, left) = armed.get_mut(name).filter(|(fault, left)| *left > 0 && wanted(*fault))?;
        *left -= 1;
        Some(*fault)
    })
}

#[cfg(feature = "faults")]
fn with_armed<T>(work: impl FnOnce(&mut HashMap<String, (Fault, u32)>) -> T) -> T {
    let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
    work(armed.get_or_insert_with(from_environment))
}

#[cfg(feature = "faults")]
fn from_environment() -> HashMap<String, (Fault, u32)> {
    let text = std::env::var("WINDLASS_FAULTS").unwrap_or_default();
    let armed = |entry: &str| {
        let (point, how) = entry.split_once('=')?;
        let fault = match how.chars().last()? {
            '!' => Fault::Exit,
            '~' => Fault::Lose,
            _ => Fault::Panic,
        };
        Some((point.to_owned(), (fault, how.trim_end_matches(['!', '~']).parse().ok()?)))
    };
    text.split(',').filter_map(armed).collect()
}
