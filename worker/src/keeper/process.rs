//! The keeper process itself: one thread, one loop over the worker's orders, its children's ends and one deadline.
//!
//! It is the parent and subreaper of everything that its attempt runs. It ends all of it when told to, and at once when
//! the worker's end of the socket is gone or the attempt's lifeline has run out. It has no runtime and no threads, so that what it does between `fork` and
//! `exec` is safe, and `waitpid(-1)` reaps nobody else's children.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{Pid, getpid, getppid, setsid};
use shared::clock;
use shared::job::Exit;

use super::cgroup::Cgroup;
use super::protocol::{Command, Event, Incoming, Order, frame};
use super::rank::{Behind, protect};
use super::strikes::Strikes;
use super::tree;

/// How many bytes are read from the socket at once.
const READ_BYTES: usize = 64 * 1024;
/// The descriptors of one order to run something: standard output and standard error.
const OUTPUT_FDS: usize = 2;
/// At least as many words as the kernel's `struct sigaction` has, and the bytes of its set of signals.
const SIGACTION_WORDS: usize = 8;
const SIGSET_BYTES: usize = 8;
/// The bytes of how often a timer has run out.
const COUNT_BYTES: usize = 8;

/// What the keeper holds.
struct Keeper {
    socket: UnixStream,
    orders: Incoming<Order>,
    descriptors: VecDeque<OwnedFd>,
    child_ended: SignalFd,
    /// Tells when everything is to end, where something does.
    lifeline: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    /// What was started last, until it ends.
    main: Option<Pid>,
    ending: Ending,
    strikes: Strikes,
    /// The worker is gone: there is nobody to talk to.
    orphaned: bool,
    setup: Setup,
}

/// Whether the tree is to end, and how.
#[derive(Clone, Copy)]
enum Ending {
    NotYet,
    /// It was asked to; what is left at that time is killed.
    Asked(Instant),
    Killed,
}

/// What a child does between `fork` and `exec`.
#[derive(Clone)]
struct Setup {
    keeper: Pid,
    cgroup: Option<Cgroup>,
    behind: Behind,
}

/// What has come.
struct Ready {
    socket: bool,
    lifeline: bool,
}

/// Runs as the keeper of one attempt until nothing of it is left. `cgroup` is the attempt's, already made; the socket
/// to the worker is standard input.
pub fn run(cgroup: Option<&Path>) -> io::Result<()> {
    let signals = isolate()?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let cgroup = cgroup.and_then(Cgroup::existing);
    let behind = Behind::this_process();
    protect();
    let setup = Setup { keeper: getpid(), cgroup: cgroup.clone(), behind };
    let keeper = Keeper {
        socket,
        orders: Incoming::default(),
        descriptors: VecDeque::new(),
        child_ended: signals,
        lifeline: None,
        cgroup,
        main: None,
        ending: Ending::NotYet,
        strikes: Strikes::default(),
        orphaned: false,
        setup,
    };
    keeper.keep();
    Ok(())
}

/// Cuts what ties the keeper to where it was started from: descriptors, signals, session. Returns the descriptor that
/// tells of ended children.
fn isolate() -> io::Result<SignalFd> {
    // SAFETY: no descriptor above standard error is in use yet in this process, so nobody's is closed.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    // A blocked signal neither ends nor stops the keeper, and children get an empty mask: see `Setup::apply`.
    SigSet::all().thread_block()?;
    // What was ignored where the worker was started would be so in every child. The kernel itself is asked, for the C
    // library hides two signals that it keeps for itself.
    let default = [0_usize; SIGACTION_WORDS];
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: zeros are the default disposition, which runs no code, and there are more of them than the kernel
        // reads; for signals that can't be set the call just fails.
        let _ = unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<usize>(), SIGSET_BYTES)
        };
    }
    // The worker has done so where it could.
    let _ = setsid();
    prctl::set_child_subreaper(true)?;
    // A job may have stopped its keeper: the worker's death wakes it, and it finds its socket closed.
    prctl::set_pdeathsig(Signal::SIGCONT)?;
    let mut child_ended = SigSet::empty();
    child_ended.add(Signal::SIGCHLD);
    Ok(SignalFd::with_flags(&child_ended, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

impl Keeper {
    fn keep(mut self) {
        loop {
            match self.wait() {
                Ok(ready) => {
                    if ready.lifeline {
                        self.look_at_lifeline();
                    }
                    if ready.socket {
                        self.hear();
                    }
                }
                // A keeper that can't wait can't keep its word either: it ends what it keeps, and then itself.
                Err(_) => self.ending = Ending::Killed,
            }
            let none_left = self.reap() && !self.cgroup.as_ref().is_some_and(Cgroup::is_populated);
            if let Ending::Asked(until) = self.ending
                && clock::instant() >= until
            {
                self.ending = Ending::Killed;
            }
            match self.ending {
                Ending::NotYet => {}
                Ending::Asked(_) | Ending::Killed if none_left => break,
                Ending::Asked(_) => {}
                Ending::Killed => self.kill(),
            }
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
        self.tell(&Event::Gone);
    }

    /// Waits for an order, a child's end, the end of the grace or that of the lifeline.
    fn wait(&self) -> io::Result<Ready> {
        let until = match self.ending {
            Ending::NotYet => None,
            Ending::Asked(until) => Some(until),
            Ending::Killed => Some(self.strikes.next_at().unwrap_or_else(clock::instant)),
        };
        let timeout = until.map_or(PollTimeout::NONE, |until| {
            // A millisecond more than is left, for the rest below one is cut off.
            let left = until.saturating_duration_since(clock::instant()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut watched = vec![PollFd::new(self.child_ended.as_fd(), PollFlags::POLLIN)];
        // A closed socket is always ready: there is nothing to wait for at it.
        let socket = (!self.orphaned).then(|| self.socket.as_fd());
        let lifeline = self.lifeline.as_ref().map(OwnedFd::as_fd);
        watched.extend(socket.into_iter().chain(lifeline).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = watched.iter().skip(1).map(|fd| fd.any().unwrap_or(false));
        let mut next = |is_watched: bool| is_watched && ready.next().unwrap_or(false);
        Ok(Ready { socket: next(socket.is_some()), lifeline: next(lifeline.is_some()) })
    }

    /// Ends everything if the timer has run out; the worker may have moved it on in the last moment.
    fn look_at_lifeline(&mut self) {
        let Some(lifeline) = &self.lifeline else { return };
        let count = nix::unistd::read(lifeline, &mut [0; COUNT_BYTES]);
        // It has run out, or can't tell any more.
        if !matches!(count, Err(Errno::EAGAIN | Errno::EINTR)) {
            self.lifeline = None;
            self.ending = Ending::Killed;
            self.tell(&Event::LostContact);
        }
    }

    /// Takes what the socket holds and obeys. When it is closed, or says what isn't an order, everything ends at once.
    fn hear(&mut self) {
        let heard = self.receive().and_then(|()| {
            while let Some(order) = self.orders.next().map_err(io::Error::other)? {
                self.obey(order);
            }
            Ok(())
        });
        if heard.is_err() {
            self.orphaned = true;
            self.ending = Ending::Killed;
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; READ_BYTES];
        let mut space = nix::cmsg_space!([RawFd; 2 * OUTPUT_FDS]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let count = match recvmsg::<()>(self.socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
            Ok(message) => {
                for control in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(fds) = control {
                        // SAFETY: the kernel has just made these descriptors for us, and nobody else owns them.
                        self.descriptors.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                    }
                }
                message.bytes
            }
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.orders.bytes.extend_from_slice(bytes.get(..count).unwrap_or_default());
        Ok(())
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Run(command) => {
                let outputs = (self.descriptors.pop_front(), self.descriptors.pop_front());
                let event = match (self.ending, outputs) {
                    (Ending::NotYet, (Some(stdout), Some(stderr))) => self.start(command, stdout, stderr),
                    _ => Event::Unable { message: "the attempt is being ended".to_owned() },
                };
                self.tell(&event);
            }
            Order::Watch => match self.descriptors.pop_front() {
                Some(lifeline) => self.lifeline = Some(lifeline),
                // Without it nothing would end what may not go on.
                None => self.ending = Ending::Killed,
            },
            Order::Stop { grace_ms: 0, is_struck } => {
                self.ending = Ending::Killed;
                if is_struck && self.cgroup.is_some() {
                    self.strikes.begin(clock::instant());
                }
            }
            Order::Stop { grace_ms, .. } => {
                let until = clock::instant().checked_add(Duration::from_millis(grace_ms));
                let until = until.unwrap_or_else(clock::instant);
                match self.ending {
                    Ending::NotYet => {
                        // Who can't be asked now is killed when the grace is over.
                        let _ = tree::terminate(self.setup.keeper);
                        self.ending = Ending::Asked(until);
                    }
                    Ending::Asked(before) => self.ending = Ending::Asked(until.min(before)),
                    Ending::Killed => {}
                }
            }
        }
    }

    fn start(&mut self, command: Command, stdout: OwnedFd, stderr: OwnedFd) -> Event {
        let Command { argv, env, cwd } = command;
        let mut words = argv.into_iter().map(OsString::from);
        let Some(program) = words.next() else {
            return Event::CannotStart { code: 127, message: "there is no program to run".to_owned() };
        };
        let cwd = OsString::from(cwd);
        if !Path::new(&cwd).is_dir() {
            return Event::CannotStart { code: 126, message: "the work tree is gone".to_owned() };
        }
        let setup = self.setup.clone();
        let mut starting = std::process::Command::new(&program);
        starting.args(words).env_clear().envs(env.into_iter().map(|(k, v)| (OsString::from(k), OsString::from(v))));
        starting.current_dir(cwd).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        // SAFETY: this process has one thread, so after `fork` the child may do whatever the parent might.
        unsafe { starting.pre_exec(move || setup.apply()) };
        match starting.spawn() {
            Ok(child) => {
                self.main = i32::try_from(child.id()).ok().map(Pid::from_raw);
                Event::Started
            }
            Err(error) => not_started(&program, &error),
        }
    }

    /// Reaps every child that has ended, adopted ones too; whether no child is left, and with it no descendant.
    fn reap(&mut self) -> bool {
        while let Ok(Some(_)) = self.child_ended.read_signal() {}
        loop {
            let mut status = 0;
            // The C library is asked itself, for a child may die of a real-time signal, which nix knows no name for.
            // SAFETY: the call writes nothing but `status`, which outlives it.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            match pid {
                0 => return false,
                -1 if Errno::last() == Errno::EINTR => {}
                -1 => return Errno::last() == Errno::ECHILD,
                pid if libc::WIFEXITED(status) => {
                    self.ended(Pid::from_raw(pid), Exit::ExitCode(low_byte(libc::WEXITSTATUS(status))));
                }
                pid if libc::WIFSIGNALED(status) => {
                    self.ended(Pid::from_raw(pid), Exit::Signal(low_byte(libc::WTERMSIG(status))));
                }
                _ => {}
            }
        }
    }

    fn ended(&mut self, pid: Pid, exit: Exit) {
        if self.main == Some(pid) {
            self.main = None;
            self.tell(&Event::Exited { exit });
        }
    }

    /// Kills what is left, when it is time. What needs no looking for is killed without.
    fn kill(&mut self) {
        let Some(strike) = self.strikes.due(clock::instant()) else { return };
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        // What was started last was made the first of its session, so its number is its group's as well, and it isn't reaped:
        // no other group has that number.
        let main = self.main.filter(|_| strike.is_first);
        let has_ended_main = main.is_some_and(|main| killpg(main, Signal::SIGKILL).is_ok());
        let is_enough = if self.cgroup.is_some() { !strike.is_late } else { has_ended_main };
        if !is_enough {
            // Those that couldn't be seen are looked for again: a child that is left is known without looking.
            let _ = tree::kill_all(self.setup.keeper);
        }
    }

    /// Tells the worker. One that doesn't listen any more has closed the socket, which is noticed where it is read.
    fn tell(&mut self, event: &Event) {
        if !self.orphaned
            && let Ok(frame) = frame(event)
        {
            let _ = self.socket.write_all(&frame);
        }
    }
}

impl Setup {
    /// Makes the child a step: a session of its own, killed if the keeper dies, open to signals, in the cgroup.
    fn apply(&self) -> io::Result<()> {
        setsid()?;
        if let Some(cgroup) = &self.cgroup {
            // The walk over the tree ends it even where the cgroup can't be joined.
            let _ = cgroup.join();
        }
        self.behind.step_back();
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != self.keeper {
            return Err(io::Error::other("the keeper died while it was starting a process"));
        }
        SigSet::empty().thread_set_mask()?;
        Ok(())
    }
}

/// What a shell would say of a program that couldn't be started, with its exit code.
fn not_started(program: &OsStr, error: &io::Error) -> Event {
    let program = program.to_string_lossy();
    let errno = error.raw_os_error().map(Errno::from_raw);
    match errno {
        Some(Errno::ENOENT) => Event::CannotStart { code: 127, message: format!("{program}: not found") },
        Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE) | None => {
            Event::Unable { message: format!("starting {program}: {error}") }
        }
        Some(errno) => Event::CannotStart { code: 126, message: format!("{program}: {}", errno.desc()) },
    }
}

fn low_byte(number: i32) -> u8 {
    let [low, ..] = number.to_le_bytes();
    low
}
