//! What a program says, as much of it as is kept: the beginning and the end, whole lines.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The most bytes that are kept of the beginning, and of the end: 64 KiB in all.
const KEPT_BYTES_MAX: usize = 32 * 1024;

/// What one pipe has brought so far. Every copy is of the same.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    /// Something between the two is gone.
    cut: bool,
}

impl Heard {
    /// Reads to the end, so that whoever writes isn't held up.
    pub async fn listen(self, mut pipe: impl AsyncRead + Unpin) {
        let mut bytes = vec![0; 8 * 1024];
        while let Ok(count @ 1..) = pipe.read(&mut bytes).await {
            // Bytes in a buffer are whole after any panic.
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.add(bytes.get(..count).unwrap_or_default());
        }
    }

    /// What was said until now.
    pub fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).text()
    }
}

impl Kept {
    fn add(&mut self, bytes: &[u8]) {
        let room = KEPT_BYTES_MAX.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let surplus = self.tail.len().saturating_sub(KEPT_BYTES_MAX);
        self.cut |= surplus > 0;
        self.tail.drain(..surplus);
    }

    fn text(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        let (mut head, mut rest) = (&*self.head, &*tail);
        if self.cut {
            // Half a line could be taken for another one.
            let is_end = |byte: &u8| *byte == b'\n';
            head = head.get(..head.iter().rposition(is_end).map_or(0, |at| at + 1)).unwrap_or_default();
            rest = rest.get(rest.iter().position(is_end).map_or(rest.len(), |at| at + 1)..).unwrap_or_default();
        }
        String::from_utf8_lossy(&[head, rest].concat()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_much_the_beginning_and_the_end_are_kept_in_whole_lines() {
        for (lines, kept) in [(3, 3), (6000, 6000), (20_000, 6550)] {
            let said: Vec<String> = (0..lines).map(|number| format!("line {number:04}\n")).collect();
            let said = said.concat();
            let heard = Heard::default();
            heard.clone().listen(said.as_bytes()).await;
            let text = heard.text();
            assert!(text.len() <= 2 * KEPT_BYTES_MAX);
            assert!(text.starts_with("line 0000\n") && text.ends_with(&format!("\nline {:04}\n", lines - 1)));
            assert!(text.lines().all(|line| said.contains(line) && line.len() >= 9), "half a line");
            let count = text.lines().count();
            assert!(count == kept || (lines > 6550 && (5900..kept).contains(&count)), "{count} of {lines}");
        }
    }
}
