//! Carries the streams of a step from their pipes into the log: reads, masks, cuts into segments.
//!
//! When the log has no room the pipe isn't read, and the step waits. A pump ends with its pipe, or when it is told to:
//! then it passes on what is in the pipe at that moment, room or not.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use shared::clock;
use shared::log::Stream;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::mask::{Forms, Masker};
use super::segment::{Piece, Segmenter};
use super::{Log, Tap};

/// How long a line under way is waited for before it is shown as it is.
const LINE_WITHIN: Duration = Duration::from_millis(250);
/// How many bytes are read at once.
const READ_BYTES: usize = 64 * 1024;
/// What the kernel shall hold of a stream, so that a step that writes much is seldom switched: 1 MiB, the most that
/// an ordinary user may ask for.
const PIPE_BYTES: usize = 1024 * 1024;
/// Where the output of a step goes.
#[derive(Clone)]
pub struct Sink {
    pub log: Log,
    pub step: u32,
    /// What is masked.
    pub forms: Option<Arc<Forms>>,
    pub tap: Option<Tap>,
}

/// Both streams of a step that runs.
pub struct Outputs {
    pumps: [JoinHandle<Ended>; 2],
    tell: watch::Sender<Told>,
    /// Closed when both pumps have ended.
    running: mpsc::Receiver<()>,
}

/// The ends of the pipes that the step writes to.
pub struct WriteEnds {
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Why a pump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nobody has the pipe open any more.
    ByItself,
    /// It was told to.
    Told,
}

/// What a pump is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    /// Carry what comes.
    GoOn,
    /// Pass on what is there, and end.
    Close,
    /// The same, without waiting for a tap that is full.
    GiveUp,
}

/// One stream on its way.
struct Pump {
    sink: Sink,
    stream: Stream,
    told: watch::Receiver<Told>,
    segmenter: Segmenter,
    pieces: Vec<Piece>,
    /// What is masked and not in the tap yet.
    masked: Vec<u8>,
}

impl Outputs {
    /// Opens both pipes and begins to carry what comes.
    pub fn open(sink: &Sink) -> io::Result<(Self, WriteEnds)> {
        let (tell, told) = watch::channel(Told::GoOn);
        let (runs, running) = mpsc::channel(1);
        let open = |stream: Stream| -> io::Result<_> {
            let (reader, writer) = pipe()?;
            let pump = Pump {
                sink: sink.clone(),
                stream,
                told: told.clone(),
                segmenter: Segmenter::default(),
                pieces: Vec::new(),
                masked: Vec::new(),
            };
            let runs = runs.clone();
            let carry = async move {
                let ended = pump.carry(reader).await;
                drop(runs);
                ended
            };
            Ok((tokio::spawn(carry), writer))
        };
        let ((out, stdout), (err, stderr)) = (open(Stream::Stdout)?, open(Stream::Stderr)?);
        Ok((Self { pumps: [out, err], tell, running }, WriteEnds { stdout, stderr }))
    }

    /// Waits until nobody has the pipes open any more and all is passed on. May be dropped and called again.
    pub async fn ended(&mut self) {
        while self.running.recv().await.is_some() {}
    }

    /// Ends both, and says whether one of them had to be told. A tap that is full is waited for until `give_up` is over:
    /// whoever reads it may take their time.
    pub async fn close(mut self, give_up: impl Future<Output = ()>) -> Ended {
        self.tell.send_replace(Told::Close);
        tokio::select! {
            () = self.ended() => {}
            () = give_up => drop(self.tell.send_replace(Told::GiveUp)),
        }
        let mut all = Ended::ByItself;
        for pump in self.pumps {
            match pump.await {
                Ok(Ended::ByItself) => {}
                Ok(Ended::Told) => all = Ended::Told,
                Err(failed) => {
                    // Nobody aborts a pump, so it panicked: that is the attempt's panic.
                    if let Ok(panic) = failed.try_into_panic() {
                        resume_unwind(panic);
                    }
                }
            }
        }
        all
    }
}

impl Pump {
    async fn carry(mut self, mut reader: pipe::Receiver) -> Ended {
        let forms = self.sink.forms.clone();
        let mut masker = Masker::new(forms.as_deref());
        let mut told = self.told.clone();
        let mut bytes = vec![0; READ_BYTES];
        let mut show_at = None;
        let ended = loop {
            let read = tokio::select! {
                biased;
                // An error is that of a sender that is gone with the attempt.
                _ = told.wait_for(|told| *told >= Told::Close) => break Ended::Told,
                () = sleep_until(show_at.unwrap_or_else(Instant::now)), if show_at.is_some() => {
                    show_at = None;
                    self.segmenter.flush(&mut self.pieces);
                    None
                }
                read = reader.read(&mut bytes) => Some(read),
            };
            match read {
                Some(Ok(0) | Err(_)) => break Ended::ByItself,
                Some(Ok(count)) => {
                    masker.push(bytes.get(..count).unwrap_or_default(), &mut self.masked);
                    self.cut(0);
                    let within = || Instant::from_std(clock::instant()) + LINE_WITHIN;
                    show_at = self.segmenter.is_open().then(|| show_at.unwrap_or_else(within));
                }
                None => {}
            }
            tokio::select! {
                biased;
                () = self.pass_on() => {}
                _ = told.wait_for(|told| *told >= Told::Close) => break Ended::Told,
            }
        };
        let ended = if ended == Ended::Told { self.drain(&reader, &mut masker) } else { ended };
        let passed = self.masked.len();
        masker.finish(&mut self.masked);
        self.cut(passed);
        self.segmenter.finish(&mut self.pieces);
        self.sink.log.put(Some(self.sink.step), self.stream, &mut self.pieces);
        tokio::select! {
            biased;
            () = self.pour() => {}
            _ = told.wait_for(|told| *told >= Told::GiveUp) => {}
        }
        ended
    }

    /// Takes what is in the pipe. Whoever still holds it open may go on writing, so it takes no more than a pipe has room
    /// for.
    fn drain(&mut self, reader: &pipe::Receiver, masker: &mut Masker) -> Ended {
        let mut bytes = vec![0; READ_BYTES];
        for _ in 0..PIPE_BYTES.div_ceil(READ_BYTES) {
            match nix::unistd::read(reader, &mut bytes) {
                Ok(0) => return Ended::ByItself,
                Ok(count) => {
                    let passed = self.masked.len();
                    masker.push(bytes.get(..count).unwrap_or_default(), &mut self.masked);
                    self.cut(passed);
                }
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        Ended::Told
    }

    /// Cuts what has been masked from there on into pieces of the log.
    fn cut(&mut self, from: usize) {
        self.segmenter.push(self.masked.get(from..).unwrap_or_default(), clock::now(), &mut self.pieces);
    }

    /// Passes on what is read, as soon as there is room for it.
    async fn pass_on(&mut self) {
        if !self.pieces.is_empty() {
            self.sink.log.room().await;
            self.sink.log.put(Some(self.sink.step), self.stream, &mut self.pieces);
        }
        self.pour().await;
    }

    /// Puts what is masked into the tap, as soon as it has room. May be dropped and called again.
    async fn pour(&mut self) {
        if let Some(tap) = &self.sink.tap
            && !self.masked.is_empty()
            // A tap that nobody reads any more takes nothing.
            && let Ok(place) = tap.reserve().await
        {
            place.send((self.stream, Bytes::copy_from_slice(&self.masked)));
        }
        self.masked.clear();
    }
}

/// A pipe: the end that we read, and the end that is handed to a process.
pub fn pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // More than the user's share is refused; then it stays as small as it is.
    let _ = i32::try_from(PIPE_BYTES).map(|bytes| fcntl(&writer, FcntlArg::F_SETPIPE_SZ(bytes)));
    Ok((pipe::Receiver::from_owned_fd(reader)?, writer))
}
