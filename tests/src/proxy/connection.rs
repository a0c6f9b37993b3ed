//! What goes through a proxy: one task for each connection, which passes pieces on when their time has come.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{Direction, Mode, Open, Way};

/// The most bytes of a piece, and the most pieces that wait in one direction: who sends more has to wait.
const PIECE_BYTES_MAX: usize = 16 * 1024;
const PIECES_MAX: usize = 64;

/// What one side has sent, and when it may arrive at the earliest.
struct Piece {
    due: Instant,
    what: Sent,
}

enum Sent {
    Bytes(Vec<u8>),
    /// It says nothing more.
    End,
    /// The connection broke.
    Break,
}

/// Takes connections for as long as the proxy is there.
pub async fn accept(listener: TcpListener, way: Arc<Way>) {
    listener.set_nonblocking(true).expect("a listener that doesn't block");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    loop {
        // Where it failed, the client that knocked is gone.
        if let Ok((client, _)) = listener.accept().await {
            begin(client, &way);
        }
    }
}

/// Begins to pass on what a client says, in a task of its own.
fn begin(client: tokio::net::TcpStream, way: &Arc<Way>) {
    let Ok(end) = another(&client) else { return };
    let held_back = Arc::new(AtomicBool::new(false));
    // Whoever cuts the way finds it written down, or has cut it before; and it doesn't end before it is written down.
    let mut state = way.state();
    if *way.mode.borrow() == Mode::Cut {
        return;
    }
    let number = state.opened;
    state.opened += 1;
    let (shared, held) = (Arc::clone(way), Arc::clone(&held_back));
    let task = tokio::spawn(async move {
        // However it ends, both ends are closed.
        let _ = pass(client, number, &shared, &held).await;
        shared.state().open.remove(&number);
    });
    state.open.insert(number, Open { ends: vec![end], task: task.abort_handle(), held_back });
}

/// Joins a client with the server, both ways, until both have said all.
async fn pass(client: tokio::net::TcpStream, number: u64, way: &Way, held_back: &AtomicBool) -> io::Result<()> {
    // A server that can't be reached answers no knock.
    until_let(&mut way.mode.subscribe(), Direction::ToServer, held_back).await;
    let to = way.state().to.clone().ok_or(io::ErrorKind::ConnectionRefused)?;
    let server = tokio::net::TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let end = another(&server)?;
    // Who was cut meanwhile isn't there any more.
    way.state().open.get_mut(&number).ok_or(io::ErrorKind::ConnectionAborted)?.ends.push(end);
    let ((client_says, client_hears), (server_says, server_hears)) = (client.into_split(), server.into_split());
    let to_server = carry(client_says, server_hears, way, Direction::ToServer, held_back);
    let to_client = carry(server_says, client_hears, way, Direction::ToClient, held_back);
    tokio::try_join!(to_server, to_client).map(|_| ())
}

async fn carry(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    way: &Way,
    direction: Direction,
    held_back: &AtomicBool,
) -> io::Result<()> {
    let (pieces, arriving) = mpsc::channel(PIECES_MAX);
    let taking = async {
        take(from, pieces, way.mode.subscribe()).await;
        Ok(())
    };
    let giving = give(to, arriving, way.mode.subscribe(), direction, held_back);
    tokio::try_join!(taking, giving).map(|_| ())
}

/// Takes what one side sends, as soon as it does.
async fn take(mut from: OwnedReadHalf, pieces: mpsc::Sender<Piece>, mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    loop {
        let what = match from.read(&mut buffer).await {
            Ok(0) => Sent::End,
            Ok(count) => Sent::Bytes(buffer[..count].to_vec()),
            Err(_) => Sent::Break,
        };
        let goes_on = matches!(what, Sent::Bytes(_));
        let due = Instant::now() + mode.borrow().delay();
        if pieces.send(Piece { due, what }).await.is_err() || !goes_on {
            return;
        }
    }
}

/// Gives the other side what has arrived, each piece when it is due and let through. What isn't late any more waits for what
/// still is: nothing overtakes what was sent before it.
async fn give(
    mut to: OwnedWriteHalf,
    mut arriving: mpsc::Receiver<Piece>,
    mut mode: watch::Receiver<Mode>,
    direction: Direction,
    held_back: &AtomicBool,
) -> io::Result<()> {
    while let Some(Piece { due, what }) = arriving.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        until_let(&mut mode, direction, held_back).await;
        match what {
            Sent::Bytes(bytes) => to.write_all(&bytes).await?,
            Sent::End => return to.shutdown().await,
            Sent::Break => return Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
    Ok(())
}

/// Waits until the way lets something through in that direction, and notes when it had to wait.
async fn until_let(mode: &mut watch::Receiver<Mode>, direction: Direction, held_back: &AtomicBool) {
    if mode.borrow().holds_back(direction) {
        held_back.store(true, Ordering::SeqCst);
        // The proxy's end is the connection's as well.
        let _ = mode.wait_for(|mode| !mode.holds_back(direction)).await;
    }
}

/// Another handle on the same connection.
fn another(stream: &tokio::net::TcpStream) -> io::Result<TcpStream> {
    Ok(TcpStream::from(stream.as_fd().try_clone_to_owned()?))
}
