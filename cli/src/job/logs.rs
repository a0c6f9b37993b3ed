//! `windlass job logs`: a job's output as it was written, both streams on standard output.

use serde::Deserialize;
use serde_json::Value;

use shared::id::Attempt;
use shared::log::{Line, Stream};

use super::{JOBS, print_document, read};
use crate::args::api::Output;
use crate::args::job::LogsArgs;
use crate::client::{Client, with_query};
use crate::exit::Error;
use crate::terminal::print;

/// The most lines of one page; a line has at most 16 KiB.
const PAGE_MAX: usize = 1000;

/// One answer of the API; in JSON the lines are left as they came.
#[derive(Deserialize)]
struct Page<T> {
    lines: Vec<T>,
    next: u64,
}

/// Prints the log as far as it is there, or to its end.
pub fn logs(client: &Client, args: &LogsArgs, output: Output) -> Result<u8, Error> {
    match (args.follow, output) {
        (false, Output::Json) => document(client, args)?,
        // A log that goes on has no end that a document could wait for: here each line is one of its own.
        (true, Output::Json) => client.follow(&path(args, &[]), |frame| print(&format!("{}\n", frame.data)))?,
        (false, Output::Table) => {
            let mut text = Text::default();
            pages(client, args, |page: Page<Line>, _| {
                print(&page.lines.iter().map(|line| text.line(line)).collect::<String>())
            })?;
            print(text.end())?;
        }
        (true, Output::Table) => {
            let mut text = Text::default();
            client.follow(&path(args, &[]), |frame| print(&text.line(&read(&frame.data)?)))?;
            print(text.end())?;
        }
    }
    Ok(0)
}

/// Prints the only page as it came, and several as one document, page by page: the log may be large.
fn document(client: &Client, args: &LogsArgs) -> Result<(), Error> {
    let mut next = None;
    let mut separator = "{\"lines\":[";
    pages(client, args, |page: Page<Value>, answer| {
        if next.is_none() && page.lines.len() < PAGE_MAX {
            return print_document(answer);
        }
        for line in &page.lines {
            print(&format!("{}{line}", std::mem::replace(&mut separator, ",")))?;
        }
        next = Some(page.next);
        Ok(())
    })?;
    next.map_or(Ok(()), |next| print(&format!("],\"next\":{next}}}\n")))
}

/// Hands each page to `each`, with the answer that it came in.
fn pages<T: serde::de::DeserializeOwned>(
    client: &Client,
    args: &LogsArgs,
    mut each: impl FnMut(Page<T>, &str) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut after = 0;
    loop {
        let paging = [("after", after.to_string()), ("limit", PAGE_MAX.to_string())];
        let answer = client.get(&path(args, &paging))?;
        let page: Page<T> = read(&answer)?;
        let last = page.lines.len() < PAGE_MAX;
        after = page.next;
        each(page, &answer)?;
        if last {
            return Ok(());
        }
    }
}

fn path(args: &LogsArgs, paging: &[(&'static str, String)]) -> String {
    let attempt = args.attempt.map(|attempt| ("attempt", attempt.to_string()));
    let parameters: Vec<_> = paging.iter().cloned().chain(attempt).collect();
    with_query(&format!("{JOBS}/{}/logs", args.id), &parameters)
}

/// Puts lines together as they were written: what was cut into several is one again.
#[derive(Default)]
struct Text {
    /// Whose line is open: its next piece goes on in it.
    open: Option<(Attempt, Option<u32>, Stream)>,
}

impl Text {
    fn line(&mut self, line: &Line) -> String {
        let whose = (line.attempt, line.step, line.stream);
        let before = if self.open.is_some_and(|open| open != whose) { "\n" } else { "" };
        self.open = line.partial.then_some(whose);
        format!("{before}{}{}", line.text, if line.partial { "" } else { "\n" })
    }

    /// What follows the last line.
    fn end(&self) -> &'static str {
        if self.open.is_some() { "\n" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use shared::clock;
    use shared::id::Attempt;
    use shared::log::{Line, Stream};

    use super::Text;

    fn line(stream: Stream, text: &str, partial: bool) -> Line {
        Line { n: 1, at: clock::now(), attempt: Attempt(1), step: Some(0), stream, text: text.to_owned(), partial }
    }

    #[test]
    fn pieces_of_a_line_are_put_together_and_streams_kept_apart() {
        let lines = [
            line(Stream::Stdout, "one ", true),
            line(Stream::Stdout, "line", false),
            line(Stream::Stdout, "open", true),
            line(Stream::Stderr, "error", false),
            line(Stream::Stdout, "last", true),
        ];
        let mut text = Text::default();
        let mut out: String = lines.iter().map(|line| text.line(line)).collect();
        out.push_str(text.end());
        assert_eq!(out, "one line\nopen\nerror\nlast\n");
    }
}
