//! What `run` shows while the job runs: the job's own output, unchanged, and where it stands: as a spinner where
//! standard error is a terminal, as plain lines elsewhere.
//!
//! One task writes all of it, so that nothing is garbled: the spinner is drawn only while the cursor stands at the
//! beginning of a line and no output comes. A reader who takes long holds up this task and the job's output, never what
//! follows the job.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, block_in_place};

use shared::clock;
use shared::log::Stream;

use super::key::Alias;
use crate::terminal::{escaped, say};

/// The most notes that wait to be shown; what is said while nobody reads our output is not worth more.
const NOTES_MAX: usize = 64;
/// How often the spinner moves.
const TICK: Duration = Duration::from_millis(100);
/// How often the spinner may be drawn in a second: more often than it moves.
const DRAWS_PER_S: u8 = 20;

/// The way to the task that writes.
pub struct Screen {
    notes: mpsc::Sender<Note>,
    output_closed: watch::Receiver<bool>,
    task: JoinHandle<io::Result<()>>,
}

/// Something to tell of the job.
enum Note {
    /// Where it stands: replaces what the spinner says.
    State(String),
    /// What must be seen: a line of its own everywhere.
    Line(String),
}

impl Screen {
    /// Writes what comes through `output`, from here on; what is told of the job names its key as `alias` does. Must be
    /// called on a multi-threaded runtime.
    pub fn start(output: mpsc::Receiver<(Stream, Bytes)>, alias: Option<Alias>) -> Self {
        let (notes, receiver) = mpsc::channel(NOTES_MAX);
        let (closed, output_closed) = watch::channel(false);
        let task = tokio::spawn(show(Painter::new(alias), output, receiver, closed));
        Self { notes, output_closed, task }
    }

    /// Tells where the job stands.
    pub fn state(&self, text: String) {
        self.note(Note::State(text));
    }

    /// Tells what must be seen.
    pub fn line(&self, text: &str) {
        self.note(Note::Line(text.to_owned()));
    }

    /// Waits until nobody reads our standard output any more.
    pub async fn output_closed(&self) {
        if self.output_closed.clone().wait_for(|closed| *closed).await.is_err() {
            // The task is gone, and with it everybody who could tell.
            std::future::pending::<()>().await;
        }
    }

    /// Writes what is still on its way, and ends. Returns what went wrong with our standard output, if anything did;
    /// from then on the job's output was thrown away.
    pub async fn finish(self) -> io::Result<()> {
        drop(self.notes);
        self.task.await.map_err(io::Error::other)?
    }

    fn note(&self, note: Note) {
        // A full queue means that nobody reads our output: waiting for that reader must not hold up the job.
        let _ = self.notes.try_send(note);
    }
}

async fn show(
    mut painter: Painter,
    mut output: mpsc::Receiver<(Stream, Bytes)>,
    mut notes: mpsc::Receiver<Note>,
    closed: watch::Sender<bool>,
) -> io::Result<()> {
    let mut tick = tokio::time::interval(TICK);
    let (mut telling, mut writing) = (true, true);
    let mut done = Ok(());
    while telling || writing {
        tokio::select! {
            biased;
            note = notes.recv(), if telling => if let Some(note) = note {
                block_in_place(|| painter.note(note));
            } else {
                // All that the job wrote is in the channel by then.
                telling = false;
                output.close();
            },
            piece = output.recv(), if writing => match piece {
                Some((Stream::Stdout, _)) if done.is_err() => {}
                Some((stream, bytes)) => {
                    if let Err(error) = block_in_place(|| painter.output(stream, &bytes)) {
                        done = Err(error);
                        closed.send_replace(true);
                    }
                }
                None => writing = false,
            },
            _ = tick.tick(), if painter.live => block_in_place(|| painter.tick()),
        }
    }
    painter.hide();
    painter.end_line();
    done
}

/// Knows where the cursor stands.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the terminal")]
struct Painter {
    /// Whether standard error is a terminal.
    live: bool,
    /// Whether standard output is the terminal too.
    one_terminal: bool,
    /// Whether the last output beside our own left its line open.
    mid_line: bool,
    /// Whether output came since the last tick.
    busy: bool,
    state: String,
    alias: Option<Alias>,
    began: Instant,
    /// The spinner, while it is drawn.
    spinner: Option<ProgressBar>,
}

impl Painter {
    fn new(alias: Option<Alias>) -> Self {
        let live = io::stderr().is_terminal();
        let one_terminal = live && io::stdout().is_terminal();
        let began = clock::instant();
        let state = "starting".to_owned();
        Self { live, one_terminal, mid_line: false, busy: false, state, alias, began, spinner: None }
    }

    /// Writes a piece of the job's output; fails only for standard output.
    fn output(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if stream == Stream::Windlass {
            String::from_utf8_lossy(bytes).lines().for_each(|line| self.line(line));
            return Ok(());
        }
        if stream == Stream::Stderr || self.one_terminal {
            self.hide();
            self.busy = true;
            self.mid_line = bytes.last().map_or(self.mid_line, |last| *last != b'\n');
        }
        if stream == Stream::Stderr {
            // Where standard error is closed, that part of the output goes nowhere, and the job goes on.
            let _ = io::stderr().write_all(bytes);
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::State(state) if state == self.state => {}
            Note::State(state) => {
                if !self.live {
                    self.line(&state);
                }
                self.state = state;
            }
            Note::Line(text) => self.line(&text),
        }
    }

    fn line(&mut self, text: &str) {
        self.hide();
        self.end_line();
        say(&self.plain(text));
    }

    fn plain<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.alias.as_ref().map_or(Cow::Borrowed(text), |alias| Cow::Owned(alias.plain(text)))
    }

    /// Ends a line that output has left open, so that our own begins in the first column.
    fn end_line(&mut self) {
        if std::mem::take(&mut self.mid_line) {
            let _ = writeln!(io::stderr());
        }
    }

    /// Draws the spinner, unless output comes or has left a line open.
    fn tick(&mut self) {
        if std::mem::take(&mut self.busy) || self.mid_line {
            return;
        }
        let began = self.began;
        let state = escaped(&self.plain(&self.state)).into_owned();
        let spinner = self.spinner.get_or_insert_with(|| new_spinner(clock::instant().duration_since(began)));
        spinner.set_message(state);
        spinner.tick();
    }

    fn hide(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}

fn new_spinner(elapsed: Duration) -> ProgressBar {
    let spinner =
        ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(DRAWS_PER_S)).with_elapsed(elapsed);
    // A template that can't be read leaves indicatif's own, which shows the same.
    match ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
        Ok(style) => spinner.with_style(style),
        Err(_) => spinner,
    }
}
