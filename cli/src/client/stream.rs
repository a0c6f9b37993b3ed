//! Follows a stream of the API to its end, and takes it up again where it broke off.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use serde::Deserialize;

use super::Client;
use super::sse::{Frame, Frames};
use crate::exit::Error;
use crate::terminal::say;

/// The most bytes of one line of a stream: an event or a log line in its longest JSON form, many times over.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// How often in a row a stream may break off before anything came.
const BREAKS_MAX: u32 = 5;
/// The wait before a stream is taken up again.
const WAIT: Duration = Duration::from_secs(1);

/// How one connection of a stream ended.
enum Ended {
    /// The server has said that there is no more.
    Complete,
    Broken(String),
}

impl Client {
    /// Hands each frame of `path` to `each`, until the server says that there is no more.
    ///
    /// # Errors
    /// Those of `each`, what the server refuses, and when the stream breaks off again and again.
    pub fn follow(&self, path: &str, mut each: impl FnMut(&Frame) -> Result<(), Error>) -> Result<(), Error> {
        let mut last = None;
        let mut breaks = 0;
        loop {
            let before = last;
            let why = match self.follow_once(path, &mut last, &mut each)? {
                Ended::Complete => return Ok(()),
                Ended::Broken(why) => why,
            };
            breaks = if last == before { breaks + 1 } else { 1 };
            if breaks > BREAKS_MAX {
                return Err(Error::failed(format_args!("{}: the stream breaks off again and again: {why}", self.base)));
            }
            say(&format!("the stream broke off ({why}); taking it up again"));
            std::thread::sleep(WAIT);
        }
    }

    fn follow_once(
        &self,
        path: &str,
        last: &mut Option<u64>,
        each: &mut impl FnMut(&Frame) -> Result<(), Error>,
    ) -> Result<Ended, Error> {
        let seen = last.map(|last| last.to_string());
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(seen.as_deref().map(|seen| ("last-event-id", seen)));
        let answer = self.open(path, &headers)?;
        let mut body = BufReader::new(answer.into_body().into_reader());
        let mut frames = Frames::default();
        loop {
            let line = match next_line(&mut body) {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(Ended::Broken("the server closed it".to_owned())),
                Err(error) => return Ok(Ended::Broken(error.to_string())),
            };
            let Some(frame) = frames.line(&line) else { continue };
            match frame.event.as_str() {
                "end" => return Ok(Ended::Complete),
                "gap" => say(&format!("a part is missing: {}", gap(&frame.data))),
                _ => each(&frame)?,
            }
            *last = frame.id.or(*last);
        }
    }
}

/// What the server says of a gap.
fn gap(data: &str) -> String {
    #[derive(Deserialize)]
    struct Gap {
        detail: String,
    }
    serde_json::from_str(data).map_or_else(|_| data.to_owned(), |gap: Gap| gap.detail)
}

/// The next line without its end; none at the end of the stream.
fn next_line(body: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut line = String::new();
    body.take(LINE_BYTES_MAX).read_line(&mut line)?;
    let Some(whole) = line.strip_suffix('\n') else {
        let too_long = std::io::Error::other("a line is too long");
        return if line.len() as u64 == LINE_BYTES_MAX { Err(too_long) } else { Ok(None) };
    };
    Ok(Some(whole.strip_suffix('\r').unwrap_or(whole).to_owned()))
}
