//! What is written to our own two streams: results to standard output, everything else to standard error.
//!
//! Nothing here panics when a stream is closed: a closed standard output ends the command quietly, a closed standard
//! error is nobody's concern.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use crate::exit::Error;

/// The width of a terminal that doesn't know it.
const COLUMNS_DEFAULT: usize = 80;

/// One line to standard error, in our own name.
pub fn say(line: &str) {
    // There is no other place to report that standard error can't be written.
    let _ = writeln!(io::stderr(), "windlass: {}", escaped(line));
}

/// A result, written to standard output at once.
///
/// # Errors
/// When standard output is closed or can't be written.
pub fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| output_error(&error))
}

/// What a failed write to standard output means for the command.
pub fn output_error(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Error::OutputClosed,
        _ => Error::failed(format_args!("writing standard output: {error}")),
    }
}

/// The width of standard output in columns, where it is a terminal; one that doesn't know its own has what `COLUMNS` says,
/// or 80.
pub fn width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let told = || std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    let (_, columns) = console::Term::stdout().size_checked().unwrap_or((0, 0));
    Some(if columns > 0 { usize::from(columns) } else { told().unwrap_or(COLUMNS_DEFAULT) })
}

/// `text` with control characters, and those that turn the direction of writing, made visible: it comes from outside
/// and must not steer the terminal.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) {
            // Writing to a String doesn't fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn what_steers_a_terminal_is_made_visible() {
        assert_eq!(escaped("a\u{1b}[31mb\nc"), "a\\u{1b}[31mb\\nc");
        assert_eq!(escaped("evil\u{202e}txt"), "evil\\u{202e}txt");
        assert_eq!(escaped("grüße 日本"), "grüße 日本");
    }
}
