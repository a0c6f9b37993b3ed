//! Requests and their replies.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use shared::bus::{Address, Error, Request, Requests, Service};
use shared::clock;
use shared::id::{Shard, WorkerId};
use shared::wire::MESSAGE_BYTES_MAX;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Medium, SOON};

/// More requests than any implementation lets wait for one service.
const FLOOD: usize = 10_000;

pub async fn a_request_is_answered_by_who_serves_its_address(medium: &dyn Medium) {
    let (server, client) = (medium.connect().await, medium.connect().await);
    let id = worker();
    let shard_7 = server.serve(Service::Shard(shard(7))).await.unwrap();
    let shard_8 = server.serve(Service::Shard(shard(8))).await.unwrap();
    let hellos = server.serve(Service::Hello).await.unwrap();
    let orders = server.serve(Service::Worker(id)).await.unwrap();
    for (name, requests) in [("shard 7", shard_7), ("shard 8", shard_8), ("hello", hellos), ("worker", orders)] {
        tokio::spawn(answer_all(requests, move |request| format!("{name} heard {:?}", request.to)));
    }

    for (to, by) in [
        (Address::Report(shard(7), id), "shard 7"),
        (Address::Heartbeat(shard(7), id), "shard 7"),
        (Address::Log(shard(7), id), "shard 7"),
        (Address::Report(shard(8), id), "shard 8"),
        (Address::Hello(id), "hello"),
        (Address::Control(id), "worker"),
    ] {
        let reply = client.request(&to, Bytes::from_static(b"?"), SOON).await;
        assert_eq!(reply, Ok(Bytes::from(format!("{by} heard {to:?}"))));
    }
}

pub async fn a_request_to_nobody_has_no_responder(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let _other = bus.serve(Service::Shard(shard(8))).await.unwrap();
    let to = Address::Report(shard(7), worker());

    assert_eq!(bus.request(&to, Bytes::new(), SOON).await, Err(Error::NoResponder(to)));
}

pub async fn a_request_without_a_reply_ends_at_its_deadline(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let mut requests = bus.serve(Service::Hello).await.unwrap();
    let to = Address::Hello(worker());
    let within = Duration::from_millis(50);
    let begun = clock::instant();

    let (kept, held) = tokio::join!(bus.request(&to, Bytes::new(), within), requests.recv());
    let took = begun.elapsed();
    let (dropped, ()) = tokio::join!(bus.request(&to, Bytes::new(), within), async {
        drop(requests.recv().await);
    });

    assert!(held.is_some());
    assert_eq!((kept, dropped), (Err(Error::TimedOut(to)), Err(Error::TimedOut(to))));
    assert!((within..SOON).contains(&took), "{took:?}");
}

pub async fn a_reply_after_the_deadline_harms_nobody(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let mut requests = bus.serve(Service::Hello).await.unwrap();
    let to = Address::Hello(worker());
    let (late, first) =
        tokio::join!(bus.request(&to, Bytes::from_static(b"1"), Duration::from_millis(50)), requests.recv());
    assert_eq!(late, Err(Error::TimedOut(to)));

    let _ = first.unwrap().reply.send(Bytes::from_static(b"to the first"));
    let (reply, ()) = tokio::join!(bus.request(&to, Bytes::from_static(b"2"), SOON), async {
        let _ = requests.recv().await.unwrap().reply.send(Bytes::from_static(b"to the second"));
    });

    assert_eq!(reply, Ok(Bytes::from_static(b"to the second")));
}

pub async fn a_message_that_is_too_large_is_refused(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let requests = bus.serve(Service::Hello).await.unwrap();
    tokio::spawn(answer_all(requests, |request| {
        "x".repeat(if request.body.is_empty() { MESSAGE_BYTES_MAX + 1 } else { 1 })
    }));
    let to = Address::Hello(worker());
    let send = async |bytes: usize| bus.request(&to, Bytes::from(vec![b'x'; bytes]), SOON).await;

    assert_eq!(send(MESSAGE_BYTES_MAX).await, Ok(Bytes::from_static(b"x")));
    assert_eq!(send(MESSAGE_BYTES_MAX + 1).await, Err(Error::TooLarge(MESSAGE_BYTES_MAX + 1)));
    let reply = send(0).await;
    assert!(matches!(reply, Err(Error::TooLarge(_) | Error::TimedOut(_))), "{reply:?}");
}

pub async fn many_requests_in_flight_get_each_its_own_reply(medium: &dyn Medium) {
    const IN_FLIGHT: usize = 500;
    let bus = medium.connect().await;
    let mut requests = bus.serve(Service::Hello).await.unwrap();
    let mut asking = JoinSet::new();
    for number in 0..IN_FLIGHT {
        let bus = Arc::clone(&bus);
        let body = Bytes::from(number.to_string());
        asking.spawn(async move { (body.clone(), bus.request(&Address::Hello(worker()), body, SOON).await) });
    }

    // All are waiting before the first, which is the last that came, is answered.
    let mut waiting = Vec::new();
    while waiting.len() < IN_FLIGHT {
        waiting.push(timeout(SOON, requests.recv()).await.expect("a request").unwrap());
    }
    for request in waiting.into_iter().rev() {
        let _ = request.reply.send(request.body);
    }

    for (body, reply) in asking.join_all().await {
        assert_eq!(reply, Ok(body));
    }
}

pub async fn a_full_queue_is_busy_until_there_is_room(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let requests = bus.serve(Service::Hello).await.unwrap();
    let to = Address::Hello(worker());
    let mut asking = JoinSet::new();
    for _ in 0..FLOOD {
        let bus = Arc::clone(&bus);
        asking.spawn(async move { bus.request(&to, Bytes::new(), Duration::from_millis(100)).await });
    }

    let replies = asking.join_all().await;
    // Where the asker can't see the queue its request is dropped and its deadline passes.
    let refused = |reply: &_| matches!(reply, Err(Error::Busy(_) | Error::TimedOut(_)));
    assert!(replies.iter().all(refused), "{:?}", replies.iter().find(|reply| !refused(reply)));

    let heard = Arc::new(AtomicUsize::new(0));
    let counted = heard.clone();
    tokio::spawn(answer_all(requests, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        "at last".to_owned()
    }));
    let reply = async {
        loop {
            match bus.request(&to, Bytes::new(), Duration::from_secs(1)).await {
                Err(Error::Busy(_) | Error::TimedOut(_)) => tokio::task::yield_now().await,
                other => return other,
            }
        }
    };
    assert_eq!(timeout(SOON, reply).await.expect("room"), Ok(Bytes::from_static(b"at last")));
    let heard = heard.load(Ordering::Relaxed);
    assert!((1..FLOOD).contains(&heard), "{heard} of {FLOOD} waited");
}

pub async fn requests_are_shared_between_the_servers_of_a_service(medium: &dyn Medium) {
    let (one, other) = (medium.connect().await, medium.connect().await);
    let first = one.serve(Service::Hello).await.unwrap();
    let second = other.serve(Service::Hello).await.unwrap();
    tokio::spawn(answer_all(first, |_| "first".to_owned()));
    let gone = tokio::spawn(answer_all(second, |_| "second".to_owned()));
    let ask = async || {
        let mut heard = HashSet::new();
        for _ in 0..40 {
            // One that is asked while it goes doesn't answer.
            if let Ok(by) = one.request(&Address::Hello(worker()), Bytes::new(), Duration::from_secs(1)).await {
                heard.insert(by);
            }
        }
        heard
    };

    assert_eq!(ask().await, HashSet::from(["first", "second"].map(Bytes::from)));
    gone.abort();
    let _ = gone.await;
    // The one that is left hears all, once the other's end is known.
    let all = async { while ask().await != HashSet::from([Bytes::from_static(b"first")]) {} };
    timeout(SOON, all).await.expect("the first alone");
}

pub async fn a_server_that_is_gone_is_no_responder(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let requests = bus.serve(Service::Hello).await.unwrap();
    let to = Address::Hello(worker());

    drop(requests);
    // Until the word of it has arrived, requests go to nobody's hands.
    let gone =
        async { while bus.request(&to, Bytes::new(), Duration::from_millis(50)).await == Err(Error::TimedOut(to)) {} };
    timeout(SOON, gone).await.expect("its end is known");
    assert_eq!(bus.request(&to, Bytes::new(), SOON).await, Err(Error::NoResponder(to)));

    let requests = bus.serve(Service::Hello).await.unwrap();
    tokio::spawn(answer_all(requests, |_| "back".to_owned()));
    assert_eq!(bus.request(&to, Bytes::new(), SOON).await, Ok(Bytes::from_static(b"back")));
}

pub async fn both_servers_of_a_shard_get_each_request_and_the_first_reply_counts(medium: &dyn Medium) {
    let (old, new, client) = (medium.connect().await, medium.connect().await, medium.connect().await);
    let mut of_old = old.serve(Service::Shard(shard(7))).await.unwrap();
    let mut of_new = new.serve(Service::Shard(shard(7))).await.unwrap();
    let to = Address::Report(shard(7), worker());

    for (first, late) in [("old", "new"), ("new", "old")] {
        let (reply, ()) = tokio::join!(client.request(&to, Bytes::from_static(b"?"), SOON), async {
            let (by_old, by_new) = (heard(&mut of_old).await, heard(&mut of_new).await);
            assert_eq!((&by_old.body, &by_new.body), (&Bytes::from_static(b"?"), &Bytes::from_static(b"?")));
            let (quick, slow) = if first == "old" { (by_old, by_new) } else { (by_new, by_old) };
            let _ = quick.reply.send(Bytes::from(first));
            // The other one answers as well; who asked has its reply by then, or ignores it.
            tokio::task::yield_now().await;
            let _ = slow.reply.send(Bytes::from(late));
        });
        let reply = reply.unwrap();
        assert!([first, late].map(Bytes::from).contains(&reply));
        println!("{first} answered first, {reply:?} was heard");
    }
    // Only one of the two answers: whichever it is, its word counts.
    let (reply, _kept) = tokio::join!(client.request(&to, Bytes::new(), SOON), async {
        let kept = heard(&mut of_old).await;
        let _ = heard(&mut of_new).await.reply.send(Bytes::from_static(b"new"));
        kept
    });
    assert_eq!(reply, Ok(Bytes::from_static(b"new")));
}

pub async fn what_a_silent_server_of_a_shard_drops_the_other_answers(medium: &dyn Medium) {
    let (zombie, owner, client) = (medium.connect().await, medium.connect().await, medium.connect().await);
    let mut unheard = zombie.serve(Service::Shard(shard(7))).await.unwrap();
    let requests = owner.serve(Service::Shard(shard(7))).await.unwrap();
    tokio::spawn(answer_all(requests, |_| "owner".to_owned()));
    tokio::spawn(async move { while unheard.recv().await.is_some() {} });

    for _ in 0..20 {
        let reply = client.request(&Address::Heartbeat(shard(7), worker()), Bytes::new(), SOON).await;
        assert_eq!(reply, Ok(Bytes::from_static(b"owner")));
    }
}

async fn heard(requests: &mut Requests) -> Request {
    timeout(SOON, requests.recv()).await.expect("a request").expect("a bus")
}

/// Answers until the bus is gone.
pub async fn answer_all(mut requests: Requests, answer: impl Fn(&Request) -> String) {
    while let Some(request) = requests.recv().await {
        let answer = answer(&request);
        // The asker may have stopped waiting.
        let _ = request.reply.send(answer.into());
    }
}

fn shard(number: u16) -> Shard {
    Shard::new(number).expect("a shard")
}

pub fn worker() -> WorkerId {
    WorkerId(clock::random_uuid())
}
