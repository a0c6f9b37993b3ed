//! The keeper: a small process of our own binary, one an attempt, and the worker's handle on it.
//!
//! The keeper is the parent and subreaper of everything that the attempt runs, so that nothing of it outlives the
//! attempt, whatever forks, daemonizes or changes its session, and not the worker either: when the worker dies, the
//! socket between the two closes and the keeper kills everything. [`main`] is the process; [`Keeper`] is the handle.
//!
//! One after the other the worker orders programs to be run and hears of each that it runs and has ended. The order to
//! stop is the last one; after it the keeper says that all is gone, and ends.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{Pid, setsid};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::timeout;

use lifeline::Lifeline;
pub use protocol::{Command, Event, Text};
use protocol::{Incoming, Order, frame};

pub mod cgroup;
pub mod lifeline;
pub mod orphans;
mod process;
pub(crate) mod protocol;
pub mod rank;
mod strikes;
pub mod tree;

/// The first argument that makes our binary a keeper.
pub const SUBCOMMAND: &str = "keeper";

/// What the hidden subcommand `windlass keeper [CGROUP]` runs. It must be called before any thread is started. The
/// socket to the worker is standard input; it returns when nothing of the attempt is left.
pub fn main() -> ExitCode {
    let cgroup = std::env::args_os().nth(2).map(PathBuf::from);
    match process::run(cgroup.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("windlass keeper: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The worker's hold on one keeper. Dropping it ends everything that the keeper runs, at once.
#[derive(Debug)]
pub struct Keeper {
    socket: UnixStream,
    events: Incoming<Event>,
    process: Child,
}

/// How long a keeper may take to read an order to stop: one that a job has stopped is woken first.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// How long a keeper that was killed may take to be gone.
const END_WITHIN: Duration = Duration::from_secs(5);

impl Keeper {
    /// Starts a keeper from our binary at `program`, with a cgroup that is already made.
    pub fn start(program: &Path, cgroup: Option<&Path>) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut starting = tokio::process::Command::new(program);
        starting.arg0("windlass").arg(SUBCOMMAND).args(cgroup);
        starting.env_clear().current_dir("/").stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        // SAFETY: `setsid` is safe to call between `fork` and `exec`. From its first moment on the keeper is out of
        // reach of what the terminal sends to the worker's group.
        unsafe { starting.pre_exec(|| setsid().map(drop).map_err(io::Error::from)) };
        let process = orphans::start_keeper(&mut starting)?;
        Ok(Self { socket: UnixStream::from_std(ours)?, events: Incoming::default(), process })
    }

    /// Orders `command` to be run with these two as its standard output and standard error.
    pub async fn run(&mut self, command: Command, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<()> {
        self.order(&Order::Run(command), &[stdout.as_raw_fd(), stderr.as_raw_fd()]).await
    }

    /// Orders the whole tree to end when the lifeline's deadline passes. The keeper needs nobody for that any more.
    pub async fn watch(&mut self, lifeline: &Lifeline) -> io::Result<()> {
        self.order(&Order::Watch, &[lifeline.as_fd().as_raw_fd()]).await
    }

    async fn order(&mut self, order: &Order, descriptors: &[RawFd]) -> io::Result<()> {
        let bytes = frame(order).map_err(io::Error::other)?;
        let rights = [ControlMessage::ScmRights(descriptors)];
        let socket = &self.socket;
        // The descriptors go with the frame's first bytes.
        let sent = socket
            .async_io(Interest::WRITABLE, || {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, flags, None)?)
            })
            .await?;
        self.socket.write_all(bytes.get(sent..).unwrap_or_default()).await
    }

    /// Orders the whole tree to end: SIGTERM, and SIGKILL after `grace`; without a grace SIGKILL at once. It may be said
    /// again, with less. `is_struck` says that the cgroup is being killed. A keeper that is gone has nothing left to end.
    pub async fn stop(&mut self, grace: Duration, is_struck: bool) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.wake();
        if let Ok(bytes) = frame(&Order::Stop { grace_ms, is_struck })
            && timeout(STOP_WITHIN, self.socket.write_all(&bytes)).await.is_err()
        {
            self.kill();
        }
        self.wake();
    }

    /// Kills the keeper itself, which the job keeps from hearing: its children die with it, and the caller looks for
    /// the rest once [`Keeper::next`] says that it is gone.
    pub fn kill(&mut self) {
        if let Err(error) = self.process.start_kill() {
            tracing::warn!(%error, "killing a keeper that does not hear");
        }
    }

    /// Waits until the keeper's process is gone, which it must be: then what it kept is adopted by this process or dead.
    pub async fn ended(&mut self) {
        self.kill();
        if timeout(END_WITHIN, self.process.wait()).await.is_err() {
            tracing::error!("a keeper that was killed does not end");
        }
    }

    /// Wakes the keeper in case the job has stopped it.
    pub fn wake(&self) {
        if let Some(pid) = self.pid() {
            let _ = kill(pid, Signal::SIGCONT);
        }
    }

    /// Its process's number; none when it is gone. One that has ended is waited for by nobody but us, so its number is
    /// still its own.
    pub fn pid(&self) -> Option<Pid> {
        self.process.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
    }

    /// The keeper's next word; none when it is gone without having said that all is gone. May be dropped and called
    /// again at any time.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.events.next() {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "a keeper is not understood");
                    return None;
                }
            }
            match self.socket.read_buf(&mut self.events.bytes).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

impl Command {
    /// The program and its arguments, run in `cwd` with exactly that environment.
    pub fn new<'a>(
        argv: impl IntoIterator<Item = &'a OsStr>,
        env: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>,
        cwd: &Path,
    ) -> Self {
        Self {
            argv: argv.into_iter().map(Text::from).collect(),
            env: env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            cwd: cwd.as_os_str().into(),
        }
    }
}
