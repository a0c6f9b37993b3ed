//! What of a log is accepted and how much of it is returned at a time, the same in every store.

use shared::log::{ATTEMPT_BYTES_MAX, Chunk, LINES_PER_ATTEMPT};
use shared::time::Period;

/// How long after its end an attempt's chunks are still accepted: one hour.
pub(super) const LATE_WITHIN: Period = Period::from_secs(60 * 60);
/// The most bytes of text that are stored of one attempt: the worker's own bound and 1 MiB for what Windlass itself
/// says in between. An honest worker never gets here.
pub(super) const STORED_BYTES_MAX: u64 = ATTEMPT_BYTES_MAX + 1024 * 1024;

/// How many lines are returned in any case, where there are so many and they are asked for: as many as one answer of the
/// API has.
pub(super) const LINES_IN_ANY_CASE: usize = 1000;
/// From how many bytes of text on no more lines are returned beyond those: 256 KiB.
pub(super) const LINES_BYTES: usize = 256 * 1024;

/// Whether its numbers begin at 1 and its lines' numbers don't run into the next attempt's.
pub(super) fn is_sound(chunk: &Chunk) -> bool {
    chunk.number > 0
        && chunk.first_line > 0
        && chunk.first_line.saturating_add(chunk.lines()) <= LINES_PER_ATTEMPT.saturating_add(1)
}

/// Where line `after` of a job stands: its attempt, and its number within that; before everything for 0.
pub(super) fn place_of(after: u64) -> (u64, u64) {
    match after.checked_sub(1) {
        None => (0, 0),
        Some(before) => (before / LINES_PER_ATTEMPT + 1, before % LINES_PER_ATTEMPT + 1),
    }
}
