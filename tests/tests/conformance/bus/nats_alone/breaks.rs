//! Connections that break, and servers that come late.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use shared::bus::nats::{NatsBus, NatsOptions, Role};
use shared::bus::{Address, Bus, Error, Hint, Service};
use shared::clock;
use shared::cloud_event::CloudEvent;
use shared::id::Shard;
use tests::nats::{Nats, Version};
use tests::wait::until;
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

use super::super::SOON;
use super::super::events::{event, job};
use super::super::offers::{lanes, offer, offered};
use super::super::requests::{answer_all, worker};
use super::{connect, options};

/// Far less than any deadline, and more than a machine under load needs.
const QUICKLY: Duration = Duration::from_secs(1);

async fn up(bus: &dyn Bus) {
    until(SOON, "the link is up", || Some(bus.link()).filter(|link| link.up && link.fit).map(drop)).await;
}

/// Asks until somebody answers.
async fn answered(bus: &dyn Bus, to: Address) -> Bytes {
    let asking = async {
        loop {
            if let Ok(reply) = bus.request(&to, Bytes::new(), QUICKLY).await {
                return reply;
            }
        }
    };
    timeout(SOON, asking).await.expect("an answer")
}

pub async fn a_restart_of_the_server_ends_no_subscription_and_no_wait(version: Version) {
    let Some(mut server) = Nats::start(version) else { return };
    let (bus, worker_bus) = (connect(&server, Role::Coordinator).await, connect(&server, Role::Worker).await);
    let (shard, id) = (Shard::new(7).expect("a shard"), worker());
    for service in [Service::Shard(shard), Service::Hello, Service::Worker(id)] {
        let requests = bus.serve(service).await.unwrap();
        tokio::spawn(answer_all(requests, move |_| format!("{service:?}")));
    }
    let mut hints = worker_bus.hints();
    // The lane is known, so that a pull stands at it.
    bus.offer(&offer("a")).await.unwrap();
    let lanes = lanes(["a"]);
    worker_bus.take(&lanes, 1, SOON).await.unwrap().into_iter().for_each(shared::bus::Delivery::done);
    let waiting = worker_bus.take(&lanes, 1, 4 * SOON);
    tokio::pin!(waiting);
    assert!(timeout(Duration::from_millis(200), &mut waiting).await.is_err());

    for (round, crash) in [(1, false), (2, true)] {
        if crash {
            server.kill();
        } else {
            server.stop();
        }
        until(SOON, "the break is noticed", || (!bus.link().up && !worker_bus.link().up).then_some(())).await;
        server.start_again();
        up(&*bus).await;
        up(&*worker_bus).await;
        assert_eq!((bus.link().breaks, worker_bus.link().breaks), (round, round));
        for to in [Address::Report(shard, id), Address::Hello(id), Address::Control(id)] {
            let expected = format!("{:?}", to.service());
            assert_eq!(answered(&*worker_bus, to).await, Bytes::from(expected));
        }
        bus.hint(Hint::Shards);
        assert_eq!(timeout(SOON, hints.recv()).await.expect("a hint"), Ok(Hint::Shards));
        assert_eq!(*bus.offers_lost().borrow(), 0, "the store was kept");
    }
    let offer = offer("a");
    bus.offer(&offer).await.unwrap();
    assert_eq!(offered(&timeout(SOON, waiting).await.expect("it waits still").unwrap()), [offer]);
}

pub async fn without_a_server_calls_end_quickly(version: Version) {
    let Some(mut server) = Nats::start(version) else { return };
    let bus = connect(&server, Role::Coordinator).await;
    server.kill();
    until(SOON, "the break is noticed", || (!bus.link().up).then_some(())).await;

    let begun = clock::instant();
    let unreachable = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Unreachable(_))), "{result:?}");
    unreachable(bus.request(&Address::Hello(worker()), Bytes::new(), SOON).await.map(drop));
    unreachable(bus.offer(&offer("a")).await.map(drop));
    unreachable(bus.withdraw(&offer("a")).await);
    unreachable(bus.publish(&event(job(), 1)).await);
    unreachable(bus.take(&lanes(["a"]), 1, SOON).await.map(drop));
    unreachable(bus.events().await.map(drop));
    bus.hint(Hint::Shards);
    let _requests = bus.serve(Service::Hello).await.unwrap();

    assert!(begun.elapsed() < QUICKLY, "{:?}", begun.elapsed());
}

pub async fn a_bus_without_a_server_works_once_there_is_one(version: Version) {
    let Some(mut server) = Nats::not_yet(version) else { return };
    let late = |role| NatsOptions { connect_within: Duration::from_millis(50), ..options(&server, role) };
    let bus = NatsBus::connect(late(Role::Coordinator)).await.expect("it comes up without");
    let worker_bus = NatsBus::connect(late(Role::Worker)).await.expect("it comes up without");
    assert!(!bus.link().up && !worker_bus.link().up);
    let requests = bus.serve(Service::Hello).await.unwrap();
    tokio::spawn(answer_all(requests, |_| "hello".to_owned()));
    let offer = offer("a");
    assert!(matches!(bus.offer(&offer).await, Err(Error::Unreachable(_))));

    server.start_again();
    up(&bus).await;
    up(&worker_bus).await;

    assert_eq!(answered(&worker_bus, Address::Hello(worker())).await, Bytes::from_static(b"hello"));
    bus.offer(&offer).await.unwrap();
    assert_eq!(offered(&worker_bus.take(&lanes(["a"]), 1, SOON).await.unwrap()), [offer]);
    assert_eq!((bus.link().breaks, worker_bus.link().breaks), (0, 0));
}

pub async fn a_server_that_says_nothing_is_noticed(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    let bus = connect(&server, Role::Coordinator).await;
    let requests = bus.serve(Service::Hello).await.unwrap();
    tokio::spawn(answer_all(requests, |_| "hello".to_owned()));

    server.freeze();
    until(6 * SOON, "the silence is noticed", || (!bus.link().up).then_some(())).await;
    server.thaw();
    up(&*bus).await;

    assert_eq!(answered(&*bus, Address::Hello(worker())).await, Bytes::from_static(b"hello"));
    assert!(bus.link().breaks >= 1);
}

pub async fn no_event_is_lost_or_overtaken_over_a_break(version: Version) {
    const EVENTS: u64 = 200;
    let Some(mut server) = Nats::start(version) else { return };
    let bus = connect(&server, Role::Coordinator).await;
    let jobs = [job(), job(), job()];
    let publishing = jobs.map(|job| {
        let bus = bus.clone();
        tokio::spawn(async move {
            for seq in 1..=EVENTS {
                // As the publisher does: each until it is acknowledged, the next one only then.
                while bus.publish(&event(job, seq)).await.is_err() {
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    let stored = async |server: &Nats| {
        let info = server.ask("STREAM.INFO.WINDLASS_EVENTS", serde_json::Value::Null).await;
        info["state"]["messages"].as_u64().expect("a stream")
    };
    for crash in [false, true] {
        let some = stored(&server).await + 50;
        timeout(SOON, async { while stored(&server).await < some {} }).await.expect("they are published");
        if crash {
            server.kill();
        } else {
            server.stop();
        }
        server.start_again();
    }
    for one in publishing {
        timeout(6 * SOON, one).await.expect("all are published").unwrap();
    }

    let count = stored(&server).await;
    let mut last = jobs.map(|_| 0);
    for number in 1..=count {
        let got = server.ask("STREAM.MSG.GET.WINDLASS_EVENTS", serde_json::json!({ "seq": number })).await;
        let subject = got["message"]["subject"].as_str().expect("a message");
        let place = jobs.iter().position(|job| subject.contains(&job.to_string())).expect("one of the jobs");
        let data = got["message"]["data"].as_str().expect("its body");
        let seq = decoded(data).data.seq;
        // A subscriber skips what isn't higher; what is left is every event in its order.
        if seq > last[place] {
            assert_eq!(seq, last[place] + 1, "one is missing");
            last[place] = seq;
        }
    }
    println!("{} repeats", count - 3 * EVENTS);
    assert_eq!(last, jobs.map(|_| EVENTS));
}

/// The event in a message as the server's own API shows it.
fn decoded(base64: &str) -> CloudEvent {
    serde_json::from_slice(&STANDARD.decode(base64).expect("base64")).expect("an event")
}

pub async fn subscribers_hear_on_after_a_break_and_a_deleted_stream(version: Version) {
    let Some(mut server) = Nats::start(version) else { return };
    let bus = connect(&server, Role::Coordinator).await;
    let mut events = bus.events().await.unwrap();
    let job = job();
    let publish = async |seq: u64| {
        let publishing = async {
            while bus.publish(&event(job, seq)).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, publishing).await.expect("published");
    };
    publish(1).await;
    hear(&mut events, 1).await;

    server.stop();
    server.start_again();
    publish(2).await;
    hear(&mut events, 2).await;

    server.ask("STREAM.DELETE.WINDLASS_EVENTS", serde_json::Value::Null).await;
    publish(3).await;
    hear(&mut events, 3).await;
}

async fn hear(events: &mut Receiver<CloudEvent>, seq: u64) {
    let heard = async { while events.recv().await.expect("a feed").data.seq != seq {} };
    timeout(6 * SOON, heard).await.expect("the event");
}
