//! How much of an attempt's output is kept: its head as it comes, and of what follows the tail.
//!
//! The tail waits in memory until the end. Where something between the two is left out, a line of ours says so at that
//! place, and another one says at the end how much it was.

use std::collections::VecDeque;

use shared::log::{ATTEMPT_BYTES_MAX, Segment};
use shared::time::Time;

use super::chunks::{Seam, own_line};

/// The most bytes of the tail: 8 MiB.
pub const TAIL_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// What is set aside for our own lines: 16 KiB, about a hundred of them.
const OWN_BYTES: u64 = 16 * 1024;
/// The most bytes of the head: 56 MiB, but for what is set aside.
pub const HEAD_BYTES_MAX: u64 = ATTEMPT_BYTES_MAX - TAIL_BYTES_MAX - OWN_BYTES;
/// What a segment of its own costs besides its text, in memory, on the wire and in the store: output that comes in tiny
/// pieces must not take many times the room of its text.
const SEGMENT_COST: u64 = 64;

/// What has been taken of one attempt's output.
#[derive(Debug)]
pub struct Budget {
    head_left: u64,
    tail_max: u64,
    /// How the last segment of the head ended.
    last: Option<Seam>,
    tail: VecDeque<Segment>,
    tail_cost: u64,
    left_out: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(HEAD_BYTES_MAX, TAIL_BYTES_MAX)
    }
}

impl Budget {
    fn new(head_left: u64, tail_max: u64) -> Self {
        Self { head_left, tail_max, last: None, tail: VecDeque::new(), tail_cost: 0, left_out: 0 }
    }

    /// Takes the next segment of the output; `keep` gets what goes into the log at once.
    pub fn take(&mut self, segment: Segment, mut keep: impl FnMut(Segment)) {
        let bytes = segment.text.len() as u64;
        let joins = self.last.is_some_and(|last| last.joins(&segment));
        let cost = if joins { bytes } else { bytes + SEGMENT_COST };
        if cost <= self.head_left {
            self.head_left -= cost;
            self.last = Some(Seam::after(self.last.filter(|_| joins), &segment));
            return keep(segment);
        }
        // What follows belongs to the tail, also where something small would still fit: the log keeps its order.
        self.head_left = 0;
        let at = segment.at;
        self.append(segment);
        while self.tail_cost > self.tail_max
            && let Some(oldest) = self.tail.pop_front()
        {
            let bytes = oldest.text.len() as u64;
            self.tail_cost = self.tail_cost.saturating_sub(bytes + SEGMENT_COST);
            if self.left_out == 0 {
                let limit = ATTEMPT_BYTES_MAX / (1024 * 1024);
                let text = format!("the output is over {limit} MiB: of what follows here only the end is kept");
                keep(own_line(at, None, &text));
            }
            self.left_out += bytes;
        }
    }

    /// The output is over: `keep` gets the tail, and a line on what was left out.
    pub fn finish(&mut self, at: Time, mut keep: impl FnMut(Segment)) {
        self.tail.drain(..).for_each(&mut keep);
        if self.left_out > 0 {
            keep(own_line(at, None, &format!("{} bytes of output were left out", self.left_out)));
        }
    }

    fn append(&mut self, segment: Segment) {
        let bytes = segment.text.len() as u64;
        match self.tail.back_mut() {
            Some(last) if Seam::after(None, last).joins(&segment) => {
                self.tail_cost += bytes;
                last.text.push_str(&segment.text);
            }
            _ => {
                self.tail_cost += bytes + SEGMENT_COST;
                self.tail.push_back(segment);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::log::Stream;

    use super::*;

    fn line(n: i64) -> Segment {
        let at = Time::from_micros(n * 1_000_000);
        Segment { at, step: Some(0), stream: Stream::Stdout, text: format!("{n:09}\n") }
    }

    fn kept(budget: &mut Budget, lines: i64) -> Vec<String> {
        let mut log = Vec::new();
        (1..=lines).for_each(|n| budget.take(line(n), |segment| log.push(segment)));
        budget.finish(Time::from_micros(0), |segment| log.push(segment));
        log.into_iter().map(|segment| segment.text.trim_end().trim_start_matches('0').to_owned()).collect()
    }

    #[test]
    fn output_within_the_limit_is_kept_whole() {
        // Each line costs its ten bytes and 64 of its segment: ten go to the head, ten to the tail.
        let mut budget = Budget::new(740, 740);
        assert_eq!(kept(&mut budget, 20), (1..=20).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn of_longer_output_head_and_tail_are_kept_and_the_cut_is_said() {
        let mut budget = Budget::new(740, 740);
        let log = kept(&mut budget, 1000);
        assert_eq!(log[..10], (1..=10).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(log[10], "the output is over 64 MiB: of what follows here only the end is kept");
        assert_eq!(log[11..21], (991..=1000).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(log[21], "9800 bytes of output were left out");
        assert_eq!(log.len(), 22);
    }

    #[test]
    fn lines_that_are_read_together_cost_no_segment_each() {
        let mut budget = Budget::new(164, 0);
        let mut log = Vec::new();
        for n in 0..10 {
            budget.take(Segment { at: Time::from_micros(n), ..line(n) }, |segment| log.push(segment));
        }
        assert_eq!(log.len(), 10);
    }
}
