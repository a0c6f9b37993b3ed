//! Puts segments together into numbered chunks, and sums the whole log up.

use std::fmt::Write;
use std::mem;
use std::time::Duration;

use sha2::{Digest, Sha256};
use shared::id::{Attempt, JobId};
use shared::log::{CHUNK_BYTES_MAX, Chunk, LogSummary, Segment, Stream};
use shared::time::Time;

/// The most bytes of a chunk as JSON: 448 KiB, so that one always fits into a message. A text of control characters
/// takes six times its length there.
pub const CHUNK_JSON_MAX: usize = 448 * 1024;
/// The most bytes of a segment as JSON besides its text.
const SEGMENT_JSON: usize = 128;
/// Lines of one stream that are read within this time of each other share a segment.
const TOGETHER_WITHIN: Duration = Duration::from_millis(100);

/// One attempt's log on its way into chunks.
#[derive(Debug)]
pub struct Chunker {
    job: JobId,
    attempt: Attempt,
    number: u32,
    next_line: u64,
    open: Vec<Segment>,
    open_bytes: usize,
    open_json: usize,
    bytes: u64,
    hash: Sha256,
}

/// A chunk and how long it is as JSON, at most.
#[derive(Debug)]
pub struct Sized {
    pub chunk: Chunk,
    pub json: usize,
}

/// How a segment ended, and whether the next one goes on in it.
#[derive(Debug, Clone, Copy)]
pub struct Seam {
    at: Time,
    step: Option<u32>,
    stream: Stream,
    bytes: usize,
    line_ended: bool,
}

impl Chunker {
    /// A log without anything in it.
    pub fn new(job: JobId, attempt: Attempt) -> Self {
        Self {
            job,
            attempt,
            number: 0,
            next_line: 1,
            open: Vec::new(),
            open_bytes: 0,
            open_json: 0,
            bytes: 0,
            hash: Sha256::new(),
        }
    }

    /// Adds a segment of at most [`CHUNK_BYTES_MAX`] bytes. Returns the chunk before, where the segment has no room in it.
    pub fn add(&mut self, segment: Segment) -> Option<Sized> {
        let (bytes, json) = (segment.text.len(), json_bytes(&segment.text) + SEGMENT_JSON);
        let fits = self.open_bytes + bytes <= CHUNK_BYTES_MAX && self.open_json + json <= CHUNK_JSON_MAX;
        let full = if fits { None } else { self.close() };
        self.open_bytes += bytes;
        self.open_json += json;
        match self.open.last_mut() {
            Some(last) if Seam::after(None, last).joins(&segment) => last.text.push_str(&segment.text),
            _ => self.open.push(segment),
        }
        full
    }

    /// The chunk under way, if anything is in it.
    pub fn close(&mut self) -> Option<Sized> {
        if self.open.is_empty() {
            return None;
        }
        self.number += 1;
        let segments = mem::take(&mut self.open);
        let json = mem::take(&mut self.open_json) + SEGMENT_JSON;
        self.bytes += mem::take(&mut self.open_bytes) as u64;
        for segment in &segments {
            self.hash.update(segment.text.as_bytes());
        }
        let Self { job, attempt, number, next_line: first_line, .. } = *self;
        self.next_line += segments.iter().map(|segment| lines(&segment.text)).sum::<u64>();
        Some(Sized { chunk: Chunk { job, attempt, number, first_line, segments }, json })
    }

    /// Whether no chunk is under way.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What the log amounts to up to the last chunk that was closed.
    pub fn summary(&self) -> LogSummary {
        LogSummary { chunks: self.number, bytes: self.bytes, sha256: hex(&self.hash.clone().finalize()) }
    }
}

impl Seam {
    /// The seam after `segment`, which went on in the one that `joined` ended.
    pub fn after(joined: Option<Self>, segment: &Segment) -> Self {
        Self {
            at: joined.map_or(segment.at, |joined| joined.at),
            step: segment.step,
            stream: segment.stream,
            bytes: joined.map_or(0, |joined| joined.bytes) + segment.text.len(),
            line_ended: segment.text.ends_with('\n'),
        }
    }

    /// Whether `next` goes on in the same segment: its lines were read at nearly the same time.
    pub fn joins(self, next: &Segment) -> bool {
        self.line_ended
            && self.stream == next.stream
            && self.step == next.step
            && self.bytes + next.text.len() <= CHUNK_BYTES_MAX
            && next.at.since(self.at) <= TOGETHER_WITHIN
    }
}

/// A line of Windlass itself.
pub fn own_line(at: Time, step: Option<u32>, text: &str) -> Segment {
    Segment { at, step, stream: Stream::Windlass, text: format!("{text}\n") }
}

/// How many lines a reader sees of a segment's text.
fn lines(text: &str) -> u64 {
    let newlines = memchr::memchr_iter(b'\n', text.as_bytes()).count() as u64;
    newlines + u64::from(!text.ends_with('\n'))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// How long a text is in JSON.
fn json_bytes(text: &str) -> usize {
    let escape = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\t' | b'\r' => 1,
        0..=0x1f => 5,
        _ => 0,
    };
    text.len() + text.bytes().map(escape).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use shared::id::Shard;
    use shared::wire;

    use super::*;

    fn segment(n: i64, text: String) -> Segment {
        Segment { at: Time::from_micros(n * 1_000_000), step: Some(99), stream: Stream::Stderr, text }
    }

    fn chunker() -> Chunker {
        let id = JobId::mint(Shard::new(7).unwrap(), Time::from_micros(1), [9; 10]);
        Chunker::new(id, Attempt(u32::MAX))
    }

    fn chunks(texts: impl IntoIterator<Item = String>) -> (Vec<Sized>, LogSummary) {
        let mut chunker = chunker();
        let mut all: Vec<Sized> = (0..).zip(texts).filter_map(|(n, text)| chunker.add(segment(n, text))).collect();
        all.extend(chunker.close());
        (all, chunker.summary())
    }

    #[test]
    fn numbers_lines_and_the_sum_fit_together() {
        let texts = ["one\ntwo\n".to_owned(), "x".repeat(CHUNK_BYTES_MAX), "par".to_owned(), "tial\n".to_owned()];
        let (all, summary) = chunks(texts.clone());
        let seen: Vec<_> = all.iter().map(|sized| (sized.chunk.number, sized.chunk.first_line)).collect();
        assert_eq!(seen, [(1, 1), (2, 3), (3, 4)]);
        assert!(
            all.iter()
                .all(|sized| sized.chunk.lines() == sized.chunk.segments.iter().map(|s| lines(&s.text)).sum::<u64>())
        );
        assert_eq!((summary.chunks, summary.bytes), (3, texts.concat().len() as u64));
        assert_eq!(summary.sha256, hex(&Sha256::digest(texts.concat())));
    }

    #[test]
    fn a_chunk_of_anything_fits_into_a_message() {
        let tiny = (0..20_000).map(|n| if n % 2 == 0 { "\u{1}".to_owned() } else { "\"\n".to_owned() });
        let rough = std::iter::repeat_n("\u{1}".repeat(CHUNK_BYTES_MAX), 3);
        for sized in chunks(tiny.chain(rough)).0 {
            let json = wire::encode(&sized.chunk).len();
            assert!(json <= sized.json && json <= CHUNK_JSON_MAX + SEGMENT_JSON, "{json} of {}", sized.json);
            assert!(sized.chunk.bytes() <= CHUNK_BYTES_MAX as u64);
        }
    }

    #[test]
    fn lines_read_together_share_a_segment() {
        let mut chunker = chunker();
        for (at, text) in [(0, "a\n"), (50_000, "b\n"), (100_000, "c"), (100_001, "d\n"), (900_000, "e\n")] {
            chunker.add(Segment { at: Time::from_micros(at), ..segment(0, text.to_owned()) });
        }
        let chunk = chunker.close().unwrap().chunk;
        assert_eq!(chunk.segments.iter().map(|s| s.text.as_str()).collect::<Vec<_>>(), ["a\nb\nc", "d\n", "e\n"]);
    }
}
