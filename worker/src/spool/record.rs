//! What a journal's file holds: records, each one line of a checksum and JSON, so that what is spoiled in one says nothing
//! about the next.
//!
//! It takes no more memory than one record of the largest size needs, whatever the bytes are.

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::id::{Attempt, JobId};

use super::Entry;

/// The most bytes of one record: 1 MiB. What it tells goes out in a message of half of that at most.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// One change of what is in the spool. `E` is an entry, or one that is lent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record<E = Entry> {
    /// The entry is there, in place of one that the attempt had.
    Put(E),
    /// The attempt has no entry any more.
    Removed { job: JobId, attempt: Attempt },
    /// Nothing changes: something was written to see whether that can be done.
    Blank(String),
}

/// What can't be read as records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Whole lines that are no records, and zeros before the end.
    pub lines: u64,
    /// The bytes of a last line without an end, as a crash in the middle of a write leaves it.
    pub torn: u64,
}

/// The record as a line.
///
/// # Errors
/// When it has no JSON form, or would be longer than [`RECORD_BYTES_MAX`] and never be read again.
pub fn line(record: &Record<&Entry>) -> io::Result<Vec<u8>> {
    let line = framed(&serde_json::to_vec(record)?);
    if line.len() > RECORD_BYTES_MAX {
        return Err(io::Error::other(format!("an entry of {} bytes is too long for the spool", line.len())));
    }
    Ok(line)
}

/// That JSON as a line.
pub fn framed(json: &[u8]) -> Vec<u8> {
    [checksum(json).as_bytes(), json, b"\n"].concat()
}

/// Gives `each` every record that can be read, in their order, and says what can't. Zeros at the end are room that wasn't used.
pub fn read(mut source: impl BufRead, mut each: impl FnMut(Record)) -> io::Result<Damage> {
    let (mut damage, mut line) = (Damage::default(), Vec::new());
    loop {
        line.clear();
        let read = source.by_ref().take(RECORD_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        // No record holds a zero: what stands before one was broken off.
        let whole = match line.iter().position(|byte| *byte == 0) {
            None => &line[..],
            Some(broken_off) => {
                let zeros = line.iter().skip(broken_off).take_while(|byte| **byte == 0).count();
                let behind = line.get(broken_off + zeros..).unwrap_or_default();
                if behind.is_empty() && skip_zeros(&mut source)? {
                    damage.torn = broken_off as u64;
                    return Ok(damage);
                }
                damage.lines += 1;
                behind
            }
        };
        match whole.strip_suffix(b"\n").map(record) {
            Some(Some(record)) => each(record),
            Some(None) => damage.lines += 1,
            None if read == 0 => return Ok(damage),
            None if whole.is_empty() => {}
            None if read == RECORD_BYTES_MAX => {
                damage.lines += 1;
                source.skip_until(b'\n')?;
            }
            None => damage.torn = whole.len() as u64,
        }
    }
}

/// Passes zeros over; whether nothing is behind them.
fn skip_zeros(source: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = source.fill_buf()?;
        let (zeros, most) = (bytes.iter().take_while(|byte| **byte == 0).count(), bytes.len());
        source.consume(zeros);
        if most == 0 || zeros < most {
            return Ok(most == 0);
        }
    }
}

/// The record of a line without its end, if it is one.
fn record(line: &[u8]) -> Option<Record> {
    let (sum, json) = line.split_at_checked(CHECKSUM_BYTES)?;
    if sum != checksum(json).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// 16 hexadecimal digits and a space.
const CHECKSUM_BYTES: usize = 17;

/// What a line begins with: the first 64 bits of the SHA-256 of the rest.
fn checksum(json: &[u8]) -> String {
    let digest = Sha256::digest(json);
    let first = digest.first_chunk().copied().map_or(0, u64::from_be_bytes);
    format!("{first:016x} ")
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    fn read_all(bytes: &[u8]) -> (Vec<Record>, Damage) {
        let mut records = Vec::new();
        let damage = read(bytes, |record| records.push(record)).unwrap();
        (records, damage)
    }

    #[test]
    fn what_is_spoiled_or_too_long_takes_no_other_record_along() {
        let one = line(&Record::Put(&entry(1))).unwrap();
        let long = [vec![b'x'; 2 * RECORD_BYTES_MAX + 7], b"\n".to_vec()].concat();
        let (records, damage) = read_all(&[&one[..], b"\n", &long, &one, &one[..40]].concat());
        assert!(
            matches!(&*records, [Record::Put(first), Record::Put(second)] if *first == entry(1) && first == second)
        );
        assert_eq!(damage, Damage { lines: 2, torn: 40 });
    }

    #[test]
    fn zeros_at_the_end_are_room_and_elsewhere_damage() {
        let one = line(&Record::Put(&entry(1))).unwrap();
        let room = vec![0; 3 * RECORD_BYTES_MAX];
        for (room, torn) in [(&room[..], 0), (&room[..5], 0), (&room[..], 30), (&room[..1], 1)] {
            let (records, damage) = read_all(&[&one[..], &one[..torn], room].concat());
            assert_eq!((records.len(), damage), (1, Damage { lines: 0, torn: torn as u64 }), "{torn}");
        }
        for zeros in [1, 100, RECORD_BYTES_MAX, 2 * RECORD_BYTES_MAX + 9] {
            let (records, damage) = read_all(&[&one[..], &room[..zeros], &one, &room].concat());
            assert_eq!((records.len(), damage), (2, Damage { lines: 1, torn: 0 }), "{zeros}");
        }
    }

    #[test]
    fn no_change_of_a_bit_is_read() {
        let one = line(&Record::Put(&entry(1))).unwrap();
        for bit in 0..one.len() * 8 {
            let mut spoiled = one.clone();
            spoiled[bit / 8] ^= 1 << (bit % 8);
            let (records, damage) = read_all(&spoiled);
            assert!(records.is_empty() && damage != Damage::default(), "bit {bit}");
        }
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let cgroup = Some("x".repeat(RECORD_BYTES_MAX).into());
        assert!(line(&Record::Put(&super::Entry { cgroup, ..entry(1) })).is_err());
    }
}
