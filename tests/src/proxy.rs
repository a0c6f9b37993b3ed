//! A way to a server that a test can trouble: cut it and mend it, hold back what goes through it in one direction or in
//! both, let all of it come later, or lead it elsewhere.
//!
//! Bytes come in their order or not at all. What was held back is never passed on afterwards: its connection is cut when
//! the way is mended, as that of a network which was away for too long.

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::AbortHandle;

mod connection;
#[cfg(test)]
mod tests;

/// Passes connections on to one server, as far as its mode lets it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    way: Arc<Way>,
    listening: AbortHandle,
}

/// What a way does with what goes through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    /// There is no way: whoever knocks is turned away.
    Cut,
    /// Nothing goes through in either direction.
    Stalled,
    /// What is sent arrives, what comes back doesn't.
    Deaf,
    /// Everything comes that much later.
    Delayed(Duration),
}

/// Whereto bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

/// What the connections of a proxy share.
#[derive(Debug)]
struct Way {
    mode: watch::Sender<Mode>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where the server is; none while there is none.
    to: Option<String>,
    /// What goes through, by a number of its own.
    open: BTreeMap<u64, Open>,
    opened: u64,
}

/// A connection that goes through.
#[derive(Debug)]
struct Open {
    /// Its ends, to be shut down by whoever cuts it.
    ends: Vec<TcpStream>,
    task: AbortHandle,
    /// Whether something of it was held back.
    held_back: Arc<AtomicBool>,
}

impl Proxy {
    /// A way to the server at `to`, like `127.0.0.1:4222`.
    pub fn to(to: &str) -> Self {
        let proxy = Self::to_nowhere();
        proxy.lead_to(to);
        proxy
    }

    /// A way that has an address already and a server later: until then whoever knocks is turned away.
    pub fn to_nowhere() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let way = Arc::new(Way { mode: watch::channel(Mode::Open).0, state: Mutex::default() });
        let listening = runtime().spawn(connection::accept(listener, Arc::clone(&way))).abort_handle();
        Self { address, way, listening }
    }

    /// Where it listens, like `127.0.0.1:40123`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The connections that go through, each by a number of its own.
    pub fn connections(&self) -> Vec<u64> {
        self.way.state().open.keys().copied().collect()
    }

    /// Leads connections to another server from now on; those that are there stay.
    pub fn lead_to(&self, to: &str) {
        self.way.state().to = Some(to.to_owned());
    }

    /// There is no server for the moment.
    pub fn lead_nowhere(&self) {
        self.way.state().to = None;
    }

    /// Ends every connection, and lets none through from now on.
    pub fn cut(&self) {
        self.way.become_so(Mode::Cut);
        self.snap();
    }

    /// Ends every connection; new ones are let through as before.
    pub fn snap(&self) {
        self.way.end(|_| true);
    }

    /// Holds back everything from now on, while connections stay open.
    pub fn stall(&self) {
        self.way.become_so(Mode::Stalled);
    }

    /// Holds back what the server says from now on, while what it is told arrives.
    pub fn deafen(&self) {
        self.way.become_so(Mode::Deaf);
    }

    /// Lets everything come that much later, in both directions.
    pub fn delay(&self, by: Duration) {
        self.way.become_so(Mode::Delayed(by));
    }

    /// Lets everything through again. A connection of which something was held back ends instead.
    pub fn mend(&self) {
        self.way.end(|connection| connection.held_back.load(Ordering::SeqCst));
        self.way.become_so(Mode::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

impl Mode {
    fn holds_back(self, direction: Direction) -> bool {
        self == Self::Stalled || (self == Self::Deaf && direction == Direction::ToClient)
    }

    fn delay(self) -> Duration {
        if let Self::Delayed(by) = self { by } else { Duration::ZERO }
    }
}

impl Way {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn become_so(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Ends the connections that `which` names, at once.
    fn end(&self, which: impl Fn(&Open) -> bool) {
        self.state().open.retain(|_, connection| {
            let ends = which(connection);
            if ends {
                for end in &connection.ends {
                    // It may have ended by itself.
                    let _ = end.shutdown(Shutdown::Both);
                }
                connection.task.abort();
            }
            !ends
        });
    }
}

/// Where all proxies of this process do their work.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let start = || Builder::new_multi_thread().worker_threads(1).thread_name("proxy").enable_all().build();
    RUNTIME.get_or_init(|| start().expect("a runtime"))
}
