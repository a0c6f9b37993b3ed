//! Cuts one stream of bytes into segments of text: whole lines, with the time at which they began to be read.
//!
//! A line that isn't complete is kept until it is, until it is [`LINE_BYTES_MAX`] long, or until whoever drives this asks
//! for it because nothing has come for a while. Nothing is allocated for a line, only for a segment.

use std::borrow::Cow;

use shared::log::{CHUNK_BYTES_MAX, LINE_BYTES_MAX};
use shared::time::Time;

/// A piece of text and when its first byte was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    pub at: Time,
    pub text: String,
}

/// The state of one stream.
#[derive(Debug, Default)]
pub struct Segmenter {
    /// The beginning of a line, and when its first byte was read.
    open: Vec<u8>,
    since: Option<Time>,
}

impl Segmenter {
    /// Takes in `bytes` that were read at `at` and appends to `out` the lines that they complete.
    pub fn push(&mut self, bytes: &[u8], at: Time, out: &mut Vec<Piece>) {
        let mut rest = bytes;
        if let Some(since) = self.since {
            // The line that is under way began earlier than the others here.
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
            let (line, others) = rest.split_at(end);
            self.open.extend_from_slice(line);
            rest = others;
            if self.open.ends_with(b"\n") {
                emit(&self.open, since, out);
                self.keep(b"", at);
            }
        }
        if let Some(newline) = memchr::memrchr(b'\n', rest) {
            let (lines, partial) = rest.split_at(newline + 1);
            emit(lines, at, out);
            rest = partial;
        }
        if !rest.is_empty() {
            self.keep(rest, at);
        }
        if self.open.len() >= LINE_BYTES_MAX {
            self.flush(out);
        }
    }

    /// Whether a line is under way.
    pub fn is_open(&self) -> bool {
        self.since.is_some()
    }

    /// Appends to `out` what there is of the line under way, but for a character of which bytes are missing.
    pub fn flush(&mut self, out: &mut Vec<Piece>) {
        let Some(since) = self.since else { return };
        let whole = self.open.len() - unfinished(&self.open);
        let (text, rest) = self.open.split_at(whole);
        emit(text, since, out);
        let rest = rest.to_vec();
        self.keep(&rest, since);
    }

    /// Appends to `out` all that is left: the stream is over.
    pub fn finish(&mut self, out: &mut Vec<Piece>) {
        if let Some(since) = self.since.take() {
            emit(&self.open, since, out);
            self.open.clear();
        }
    }

    fn keep(&mut self, bytes: &[u8], at: Time) {
        self.open.clear();
        self.open.extend_from_slice(bytes);
        self.since = (!bytes.is_empty()).then_some(at);
    }
}

/// Appends `bytes` as text, in pieces that no line and no chunk is too long for. What isn't UTF-8 is replaced.
fn emit(bytes: &[u8], at: Time, out: &mut Vec<Piece>) {
    let text = String::from_utf8_lossy(bytes);
    if text.len() <= LINE_BYTES_MAX {
        if !text.is_empty() {
            out.push(Piece { at, text: text.into_owned() });
        }
        return;
    }
    let mut rest: &str = match &text {
        Cow::Borrowed(text) => text,
        Cow::Owned(text) => text,
    };
    while !rest.is_empty() {
        let (piece, others) = rest.split_at(piece_end(rest));
        out.push(Piece { at, text: piece.to_owned() });
        rest = others;
    }
}

/// Where the first piece of `text` ends: after as many whole lines as a chunk has room for, or within a line that is
/// too long.
fn piece_end(text: &str) -> usize {
    let mut end = 0;
    for newline in memchr::memchr_iter(b'\n', text.as_bytes()) {
        if newline + 1 - end > LINE_BYTES_MAX || newline + 1 > CHUNK_BYTES_MAX {
            break;
        }
        end = newline + 1;
    }
    let rest = text.len() - end;
    if end > 0 && (rest > LINE_BYTES_MAX || text.len() > CHUNK_BYTES_MAX) {
        return end;
    }
    if rest <= LINE_BYTES_MAX {
        return text.len();
    }
    text.floor_char_boundary(LINE_BYTES_MAX)
}

/// How many bytes at the end belong to a character that isn't complete.
fn unfinished(bytes: &[u8]) -> usize {
    // A character has at most four bytes: the first one is among the last three, or all are there.
    for back in 1..=bytes.len().min(3) {
        let Some(byte) = bytes.get(bytes.len() - back) else { break };
        let length = match byte {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => return 0,
        };
        return if length > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(n: i64) -> Time {
        Time::from_micros(n)
    }

    fn texts(pieces: &[Piece]) -> Vec<&str> {
        pieces.iter().map(|piece| piece.text.as_str()).collect()
    }

    #[test]
    fn lines_come_whole_with_the_time_of_their_first_byte() {
        let (mut segmenter, mut out) = (Segmenter::default(), Vec::new());
        segmenter.push(b"one\ntwo\nthr", at(1), &mut out);
        segmenter.push(b"ee\nfour\n", at(2), &mut out);
        assert_eq!(texts(&out), ["one\ntwo\n", "three\n", "four\n"]);
        assert_eq!(out.iter().map(|piece| piece.at.micros()).collect::<Vec<_>>(), [1, 1, 2]);
        assert!(!segmenter.is_open());
    }

    #[test]
    fn a_line_under_way_is_given_when_asked_for_but_no_half_character() {
        let (mut segmenter, mut out) = (Segmenter::default(), Vec::new());
        segmenter.push("prompt: \u{20ac}".as_bytes().split_last().unwrap().1, at(1), &mut out);
        assert!(out.is_empty() && segmenter.is_open());
        segmenter.flush(&mut out);
        assert_eq!(texts(&out), ["prompt: "]);
        segmenter.push(b"\xac\n", at(2), &mut out);
        assert_eq!(texts(&out), ["prompt: ", "\u{20ac}\n"]);
    }

    #[test]
    fn what_is_not_utf_8_is_replaced() {
        let (mut segmenter, mut out) = (Segmenter::default(), Vec::new());
        segmenter.push(b"a\xffb\n\xe2\x82", at(1), &mut out);
        segmenter.finish(&mut out);
        assert_eq!(texts(&out), ["a\u{fffd}b\n", "\u{fffd}"]);
    }

    proptest! {
        #[test]
        fn no_text_is_lost_and_no_bound_passed(
            line in 0_usize..40_000, count in 1_usize..8, cut in 1_usize..70_000, wide in any::<bool>(),
        ) {
            let letter = if wide { "\u{e9}" } else { "x" };
            let text: String = (0..count).map(|n| letter.repeat(line / (n + 1)) + "\n").collect();
            let (mut segmenter, mut out) = (Segmenter::default(), Vec::new());
            for bytes in text.as_bytes().chunks(cut) {
                segmenter.push(bytes, at(1), &mut out);
            }
            segmenter.finish(&mut out);
            prop_assert_eq!(texts(&out).concat(), text);
            for piece in &out {
                prop_assert!(!piece.text.is_empty() && piece.text.len() <= CHUNK_BYTES_MAX);
                prop_assert!(piece.text.split_inclusive('\n').all(|line| line.len() <= LINE_BYTES_MAX));
            }
        }

        #[test]
        fn any_bytes_stay_within_the_bounds(bytes in prop::collection::vec(any::<u8>(), 0..100_000), cut in 1_usize..70_000) {
            let (mut segmenter, mut out) = (Segmenter::default(), Vec::new());
            for bytes in bytes.chunks(cut) {
                segmenter.push(bytes, at(1), &mut out);
                segmenter.flush(&mut out);
            }
            segmenter.finish(&mut out);
            for piece in &out {
                prop_assert!(piece.text.len() <= CHUNK_BYTES_MAX);
                prop_assert!(piece.text.split_inclusive('\n').all(|line| line.len() <= LINE_BYTES_MAX));
            }
        }
    }
}
