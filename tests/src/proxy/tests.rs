//! Each trouble of a way, seen from its two ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use shared::clock;

use super::Proxy;
use crate::wait::eventually;

/// For how long nothing must come.
const SILENCE: Duration = Duration::from_millis(200);
/// How long what comes may take at most.
const SOON: Duration = Duration::from_secs(20);

/// A server that says back what it is told, and where it listens.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut heard = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut heard) {
                    if stream.write_all(&heard[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// A server that takes one connection; its end, once a client has come.
fn server() -> (String, impl FnOnce() -> TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    let taken = move || {
        let (stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(SOON)).expect("a deadline");
        stream
    };
    (address, taken)
}

fn client(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("a deadline");
    stream
}

/// What comes back when that byte is sent.
fn say(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
    let mut heard = [0];
    stream.write_all(&[byte]).and_then(|()| stream.read_exact(&mut heard)).map(|()| heard[0])
}

/// Whether nothing comes for a while, and the connection stays open.
fn is_silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(SILENCE)).expect("a deadline");
    let heard = stream.read(&mut [0]);
    stream.set_read_timeout(Some(SOON)).expect("a deadline");
    heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Whether it has ended without a further byte.
fn has_ended(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn what_goes_through_is_cut_and_mended() {
    let proxy = Proxy::to(&echo());
    let mut stream = client(&proxy);
    assert_eq!(say(&mut stream, 7).expect("an echo"), 7);
    proxy.cut();
    assert!(say(&mut stream, 8).is_err());
    assert!(say(&mut client(&proxy), 9).is_err());
    proxy.mend();
    assert_eq!(say(&mut client(&proxy), 10).expect("an echo"), 10);
}

#[test]
fn a_way_that_snaps_loses_its_connections_and_takes_new_ones() {
    let proxy = Proxy::to(&echo());
    let mut stream = client(&proxy);
    assert_eq!(say(&mut stream, 7).expect("an echo"), 7);
    proxy.snap();
    assert!(say(&mut stream, 8).is_err());
    assert_eq!(say(&mut client(&proxy), 9).expect("an echo"), 9);
}

#[test]
fn a_stalled_way_keeps_its_connections_and_ends_those_of_which_it_held_something_back() {
    let (address, arrived) = server();
    let proxy = Proxy::to(&address);
    let mut speaking = client(&proxy);
    speaking.write_all(&[1]).expect("a byte");
    let mut at_server = arrived();
    let mut heard = [0];
    at_server.read_exact(&mut heard).expect("a byte");
    proxy.stall();
    speaking.write_all(&[2, 3]).expect("it stays open");
    at_server.write_all(&[4]).expect("it stays open");
    assert!(is_silent(&mut speaking) && is_silent(&mut at_server));
    proxy.mend();
    assert!(has_ended(&mut speaking) && has_ended(&mut at_server));
}

#[test]
fn a_connection_that_said_nothing_while_its_way_was_stalled_goes_on() {
    let proxy = Proxy::to(&echo());
    let mut stream = client(&proxy);
    assert_eq!(say(&mut stream, 7).expect("an echo"), 7);
    proxy.stall();
    assert!(is_silent(&mut stream));
    proxy.mend();
    assert_eq!(say(&mut stream, 8).expect("an echo"), 8);
}

#[test]
fn whoever_knocks_at_a_stalled_way_hears_nothing_and_is_turned_away_when_it_is_mended() {
    let (address, arrived) = server();
    let proxy = Proxy::to(&address);
    proxy.stall();
    let mut knocking = client(&proxy);
    knocking.write_all(&[1]).expect("it is let in");
    assert!(is_silent(&mut knocking));
    proxy.mend();
    assert!(has_ended(&mut knocking));
    let mut next = client(&proxy);
    next.write_all(&[2]).expect("it is let in");
    let mut heard = [0];
    arrived().read_exact(&mut heard).expect("a byte");
    assert_eq!(heard, [2], "what was held back has arrived");
}

#[test]
fn by_a_deaf_way_words_arrive_and_answers_do_not() {
    let (address, arrived) = server();
    let proxy = Proxy::to(&address);
    let mut asking = client(&proxy);
    let mut at_server = arrived();
    proxy.deafen();
    asking.write_all(b"ask").expect("it stays open");
    let mut heard = [0; 3];
    at_server.read_exact(&mut heard).expect("what was asked");
    at_server.write_all(b"answer").expect("it stays open");
    assert!(is_silent(&mut asking));
    proxy.mend();
    assert!(has_ended(&mut asking));
}

#[test]
fn a_delayed_way_brings_every_byte_in_its_order_and_later() {
    const DELAY: Duration = Duration::from_millis(150);
    let proxy = Proxy::to(&echo());
    let mut stream = client(&proxy);
    assert_eq!(say(&mut stream, 7).expect("an echo"), 7);
    proxy.delay(DELAY);
    let begun = clock::instant();
    assert_eq!(say(&mut stream, 8).expect("an echo"), 8);
    assert!(begun.elapsed() >= DELAY * 2, "there and back: {:?}", begun.elapsed());

    let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let mut writing = stream.try_clone().expect("a second handle");
    let all = sent.clone();
    let writer = thread::spawn(move || writing.write_all(&all));
    let mut heard = vec![0; sent.len() / 2];
    stream.read_exact(&mut heard).expect("the first half");
    // What is under way keeps its order when what follows isn't late any more.
    proxy.mend();
    let mut rest = vec![0; sent.len() - heard.len()];
    stream.read_exact(&mut rest).expect("the second half");
    heard.extend(rest);
    assert!(heard == sent, "bytes were lost, doubled or turned around");
    writer.join().expect("a writer").expect("all is sent");
}

#[test]
fn a_way_leads_where_it_is_told() {
    let proxy = Proxy::to_nowhere();
    assert!(say(&mut client(&proxy), 1).is_err());
    let (first, second) = (echo(), echo());
    proxy.lead_to(&first);
    let mut stream = client(&proxy);
    assert_eq!(say(&mut stream, 2).expect("an echo"), 2);
    proxy.lead_nowhere();
    assert!(say(&mut client(&proxy), 3).is_err());
    proxy.lead_to(&second);
    assert_eq!(say(&mut client(&proxy), 4).expect("an echo"), 4);
    assert_eq!(say(&mut stream, 5).expect("the connection that was there stays"), 5);
}

#[test]
fn an_end_that_closes_closes_the_other() {
    let (address, arrived) = server();
    let proxy = Proxy::to(&address);
    let stream = client(&proxy);
    let mut at_server = arrived();
    drop(stream);
    assert!(has_ended(&mut at_server));
    drop(at_server);
    eventually(SOON, "the connection is forgotten", || proxy.connections().is_empty().then_some(()));
}
