//! Bodies that don't say how long they are, many at a time: each has the room that it needs and no more.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;

use tests::played::DEADLINE;
use tests::wait::eventually;

use crate::{JOB, Server, TOKEN};

/// Spaces that a body goes on with.
const PART: usize = 64 * 1024;

/// A request whose body comes part by part.
struct Sending(TcpStream);

impl Sending {
    /// A submission, with the beginning of its body.
    fn begin(server: &Server) -> Self {
        let stream = TcpStream::connect(server.api.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let mut sending = Self(stream);
        let head = format!("POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n");
        let kind = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        sending.0.write_all(format!("{head}{kind}").as_bytes()).unwrap();
        sending.part(JOB).unwrap();
        sending
    }

    fn part(&mut self, text: &str) -> std::io::Result<()> {
        self.0.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
    }

    /// Whether the server has answered already, or has closed the connection.
    fn is_refused(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let peeked = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        !peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Ends the body; returns the answer's status, none where the connection was cut off before it could be read.
    fn end(mut self) -> Option<u16> {
        // A connection that takes nothing more may still hold the answer.
        let _ = self.0.write_all(b"0\r\n\r\n");
        let first = BufReader::new(self.0).lines().next()?.ok()?;
        Some(first.split(' ').nth(1).expect("a status").parse().expect("a number"))
    }
}

#[test]
fn many_small_bodies_of_unknown_length_are_read_at_once() {
    let server = Server::start();
    let sending: Vec<Sending> = (0..32).map(|_| Sending::begin(&server)).collect();
    let statuses: Vec<_> = sending.into_iter().map(Sending::end).collect();
    assert_eq!(statuses, [Some(201); 32]);
}

#[test]
fn large_bodies_of_unknown_length_take_no_more_than_there_is_for_all() {
    let server = Server::start();
    let mut sending: Vec<Sending> = (0..6).map(|_| Sending::begin(&server)).collect();
    // Seven MiB each, side by side: those of four are all that there is room for.
    for _ in 0..7 * 1024 * 1024 / PART {
        for one in &mut sending {
            // Whoever was refused is cut off in time.
            let _ = one.part(&" ".repeat(PART));
        }
    }
    // What was sent may be on its way for a while; none of it has ended, so that two find no room.
    eventually(DEADLINE, "two are refused", || {
        (sending.iter().filter(|one| one.is_refused()).count() >= 2).then_some(())
    });
    let statuses: Vec<_> = sending.into_iter().map(Sending::end).collect();
    assert!(statuses.iter().all(|status| [Some(201), Some(429), None].contains(status)), "{statuses:?}");
    let taken = statuses.iter().filter(|status| **status == Some(201)).count();
    assert!((1..=4).contains(&taken), "{statuses:?}");
    // What they had is free again.
    assert_eq!(Sending::begin(&server).end(), Some(201));
}
