//! A way to a server that a test can cut: what goes through it stops at once, and comes back when it is mended.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Passes connections on to one server until it is cut.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    cut: bool,
    /// Both ends of what goes through.
    open: Vec<TcpStream>,
}

impl Proxy {
    /// A way to the server at `to`, like `127.0.0.1:4222`.
    pub fn to(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(State::default()));
        let (to, shared) = (to.to_owned(), Arc::clone(&state));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // While it is cut, whoever knocks is turned away.
                if !held(&shared).cut {
                    pass(client, &to, &shared);
                }
            }
        });
        Self { address, state }
    }

    /// Where it listens, like `127.0.0.1:40123`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends every connection, and lets none through from now on.
    pub fn cut(&self) {
        let mut state = held(&self.state);
        state.cut = true;
        for stream in state.open.drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        held(&self.state).cut = false;
    }
}

/// Joins a client with the server, both ways.
fn pass(client: TcpStream, to: &str, state: &Mutex<State>) {
    let Ok(server) = TcpStream::connect(to) else { return };
    let copies = [client.try_clone(), server.try_clone(), client.try_clone(), server.try_clone()];
    let [Ok(client_in), Ok(server_in), Ok(client_end), Ok(server_end)] = copies else { return };
    held(state).open.extend([client_end, server_end]);
    thread::spawn(move || copy(client_in, server));
    thread::spawn(move || copy(server_in, client));
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn held(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_through_is_cut_and_mended() {
        let echo = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let proxy = Proxy::to(&echo.local_addr().expect("its address").to_string());
        thread::spawn(move || {
            for mut stream in echo.incoming().map_while(Result::ok) {
                let mut byte = [0];
                while let Ok(1) = stream.read(&mut byte) {
                    let _ = stream.write_all(&byte);
                }
            }
        });
        let say = |stream: &mut TcpStream, byte: u8| {
            let mut heard = [0];
            stream.write_all(&[byte]).and_then(|()| stream.read_exact(&mut heard)).map(|()| heard[0])
        };
        let mut stream = TcpStream::connect(proxy.address()).expect("it listens");
        assert_eq!(say(&mut stream, 7).expect("an echo"), 7);
        proxy.cut();
        assert!(say(&mut stream, 8).is_err());
        let mut knocking = TcpStream::connect(proxy.address()).expect("it listens");
        assert!(say(&mut knocking, 9).is_err());
        proxy.mend();
        let mut again = TcpStream::connect(proxy.address()).expect("it listens");
        assert_eq!(say(&mut again, 10).expect("an echo"), 10);
    }
}
