//! A job's log as it travels and is stored: numbered chunks of segments, and the lines that a reader sees.
//!
//! The worker cuts output into segments that end with a line wherever they can; the store keeps chunks as they came;
//! lines are made when somebody reads.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{Attempt, JobId};
use crate::time::Time;

/// The most bytes of text in one chunk: 64 KiB.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of one line; what is longer goes on in the next.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// The most bytes that are stored of one attempt's output: 64 MiB.
pub const ATTEMPT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// From the number of an attempt's first line to that of the next attempt's: more lines than
/// [`ATTEMPT_BYTES_MAX`] bytes can hold, so that a line's number is unique in its job and only grows.
pub const LINES_PER_ATTEMPT: u64 = 100_000_000;

/// Where a piece of log comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
    /// Windlass itself: what was checked out, what was cut, what was closed.
    Windlass,
}

/// A piece of one stream, read at one time: whole lines, the last of which may go on in a later segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    pub at: Time,
    /// The index of the step; none for what is no step's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    pub stream: Stream,
    pub text: String,
}

impl Segment {
    /// How many lines a reader sees of it: a last one without a newline counts.
    pub fn lines(&self) -> u64 {
        self.text.split_inclusive('\n').count() as u64
    }
}

/// A numbered piece of an attempt's log, at most [`CHUNK_BYTES_MAX`] bytes of text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    pub job: JobId,
    pub attempt: Attempt,
    /// From 1, without gaps, within the attempt.
    pub number: u32,
    /// The number of its first line within the attempt, from 1.
    pub first_line: u64,
    pub segments: Vec<Segment>,
}

impl Chunk {
    /// How many lines a reader sees of it.
    pub fn lines(&self) -> u64 {
        self.segments.iter().map(Segment::lines).sum()
    }

    /// How many bytes of text it holds.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.text.len() as u64).sum()
    }

    /// The lines that follow number `after` of the job, numbered within the job.
    pub fn lines_after(&self, after: u64) -> impl Iterator<Item = Line> + '_ {
        // A worker gives the number of the first line: a wrong one makes wrong numbers, never a panic.
        let base = (u64::from(self.attempt.0.saturating_sub(1)) * LINES_PER_ATTEMPT).saturating_add(self.first_line);
        let texts = self.segments.iter().flat_map(|s| s.text.split_inclusive('\n').map(move |text| (s, text)));
        let numbered = texts.enumerate().map(move |(offset, of)| (base.saturating_add(offset as u64), of));
        // What is passed over is not copied: a chunk can hold thousands of lines.
        numbered.filter(move |(n, _)| *n > after).map(|(n, (segment, text))| Line {
            n,
            at: segment.at,
            attempt: self.attempt,
            step: segment.step,
            stream: segment.stream,
            partial: !text.ends_with('\n'),
            text: text.strip_suffix('\n').unwrap_or(text).to_owned(),
        })
    }
}

/// One line of a log, as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// Its number within the job: it only grows, also from one attempt to the next.
    pub n: u64,
    /// When its first byte was read.
    #[schema(value_type = String)]
    pub at: Time,
    #[schema(value_type = u32)]
    pub attempt: Attempt,
    /// The index of the step; null for what is no step's.
    pub step: Option<u32>,
    pub stream: Stream,
    /// Without its newline.
    pub text: String,
    /// Whether the output had no newline here: the line goes on, or the output ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// What an attempt's whole log amounts to, told with its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSummary {
    pub chunks: u32,
    /// Bytes of text over all chunks.
    pub bytes: u64,
    /// The SHA-256 of all text in order, in hex.
    pub sha256: String,
}

impl Default for LogSummary {
    /// A log without a single byte.
    fn default() -> Self {
        let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned();
        Self { chunks: 0, bytes: 0, sha256 }
    }
}
