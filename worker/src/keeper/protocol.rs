//! What a worker and a keeper say to each other: frames of a four-byte length and JSON, over a pair of Unix sockets.
//!
//! An order to run something comes with two descriptors beside its frame, the write ends of the two output pipes, and that
//! to watch a timer with the timer's.
//! This module owns the words and the framing; it reads and writes nothing itself.

use std::ffi::{OsStr, OsString};
use std::marker::PhantomData;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::job::Exit;

/// The most bytes of one frame: 16 MiB. A specification holds 256 KiB and Linux gives an argument list and an
/// environment at most 6 MiB together, which JSON makes longer.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The bytes of a frame's length.
const LENGTH_BYTES: usize = 4;

/// What the worker tells the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Run that; the descriptors of its standard output and standard error come along.
    Run(Command),
    /// End the whole tree at once when the timer runs out whose descriptor comes along.
    Watch,
    /// End the whole tree: SIGTERM, and SIGKILL after `grace_ms`. A later order can only shorten the grace. Where somebody
    /// else sees to it that the cgroup is killed just now, that `is_struck` and is only done again where it isn't enough.
    Stop { grace_ms: u64, is_struck: bool },
}

/// A program to run, exactly so: nothing is added to its environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program, looked up in the environment's own PATH, and its arguments.
    pub argv: Vec<Text>,
    pub env: Vec<(Text, Text)>,
    pub cwd: Text,
}

/// What the keeper tells the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// What was ordered last runs.
    Started,
    /// What was ordered last can't be run, for a reason that lies in it: 127 not found, 126 not executable.
    CannotStart { code: u8, message: String },
    /// The keeper couldn't start a process at all.
    Unable { message: String },
    /// What was started last has ended; processes that it left may go on.
    Exited { exit: Exit },
    /// The timer has run out: everything ends.
    LostContact,
    /// Nothing of the attempt runs any more. This is the keeper's last word.
    Gone,
}

/// A text of the operating system, which need not be UTF-8: plain in JSON where it is, else a list of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    Plain(String),
    Bytes(Vec<u8>),
}

impl From<&OsStr> for Text {
    fn from(text: &OsStr) -> Self {
        text.to_str().map_or_else(|| Self::Bytes(text.as_bytes().to_vec()), |plain| Self::Plain(plain.to_owned()))
    }
}

impl From<Text> for OsString {
    fn from(text: Text) -> Self {
        match text {
            Text::Plain(plain) => plain.into(),
            Text::Bytes(bytes) => Self::from_vec(bytes),
        }
    }
}

/// What came over the socket isn't a frame of the other side.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    #[error("reading a frame: {0}")]
    NotJson(#[from] serde_json::Error),
}

/// The frame that says `message`.
///
/// # Errors
/// When it would be longer than [`FRAME_BYTES_MAX`].
pub fn frame<T: Serialize>(message: &T) -> Result<Vec<u8>, Broken> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= FRAME_BYTES_MAX);
    let length = length.ok_or(Broken::TooLong(json.len()))?;
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend_from_slice(&json);
    Ok(frame)
}

/// Bytes as they arrive, and the messages in them.
#[derive(Debug)]
pub struct Incoming<T> {
    /// What has arrived and isn't a whole frame yet.
    pub bytes: Vec<u8>,
    messages: PhantomData<T>,
}

impl<T> Default for Incoming<T> {
    fn default() -> Self {
        Self { bytes: Vec::new(), messages: PhantomData }
    }
}

impl<T: DeserializeOwned> Incoming<T> {
    /// The next message, if all of it is there.
    ///
    /// # Errors
    /// When the bytes aren't frames of that message; nothing after them can be understood.
    pub fn next(&mut self) -> Result<Option<T>, Broken> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Broken::TooLong(length));
        }
        let Some(json) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(json)?;
        self.bytes.drain(..LENGTH_BYTES + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_whole_however_they_arrive() {
        let orders = [1, 70_000].map(|grace_ms| Order::Stop { grace_ms, is_struck: false });
        let sent: Vec<u8> = orders.iter().flat_map(|order| frame(order).unwrap()).collect();
        for piece in 1..sent.len() {
            let mut incoming = Incoming::<Order>::default();
            let mut seen = Vec::new();
            for bytes in sent.chunks(piece) {
                incoming.bytes.extend_from_slice(bytes);
                while let Some(Order::Stop { grace_ms, .. }) = incoming.next().unwrap() {
                    seen.push(grace_ms);
                }
            }
            assert_eq!(seen, [1, 70_000]);
        }
    }

    #[test]
    fn a_text_that_is_not_utf_8_arrives_as_it_was() {
        for bytes in [&b"plain"[..], b"\xff\xfe odd", b""] {
            let text = Text::from(OsStr::from_bytes(bytes));
            let json = serde_json::to_vec(&text).unwrap();
            let back: Text = serde_json::from_slice(&json).unwrap();
            assert_eq!(OsString::from(back), OsStr::from_bytes(bytes));
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused() {
        let mut incoming = Incoming::<Order>::default();
        incoming.bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(incoming.next(), Err(Broken::TooLong(_))));
    }
}
