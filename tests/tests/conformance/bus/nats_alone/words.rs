//! What is on the wire, and how fast it gets there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use shared::bus::nats::Role;
use shared::bus::{Address, Error, Hint, Placed, Service, ToSend};
use shared::clock;
use shared::cloud_event::CloudEvent;
use shared::id::Shard;
use tests::nats::{Nats, Version, dealt_with};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::SOON;
use super::super::events::{event, job};
use super::super::offers::{lanes, offer, offered};
use super::super::requests::{answer_all, worker};
use super::connect;

pub async fn an_event_is_what_a_plain_subscriber_expects(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    let bus = connect(&server, Role::Coordinator).await;
    let client = server.client().await;
    let event = event(job(), 3);
    let mut subscriber = client.subscribe(format!("windlass.event.{}.*", event.job)).await.unwrap();
    dealt_with(&client).await;

    bus.publish(&event).await.unwrap();

    let message = timeout(SOON, subscriber.next()).await.expect("an event").expect("a server");
    assert_eq!(message.subject.as_str(), format!("windlass.event.{}.started", event.job));
    let headers = message.headers.expect("headers");
    assert_eq!(headers.get("content-type").map(async_nats::HeaderValue::as_str), Some("application/cloudevents+json"));
    assert_eq!(serde_json::from_slice::<CloudEvent>(&message.payload).unwrap(), CloudEvent::from(&event));
}

pub async fn hints_come_in_a_list_or_alone_as_earlier_versions_send_them(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    let bus = connect(&server, Role::Coordinator).await;
    let mut hints = bus.hints();
    let (client, [one, two]) = (server.client().await, [job(), job()]);
    for text in [format!(r#"{{"job":"{one}"}}"#), "gossip".to_owned(), format!(r#"["shards",{{"job":"{two}"}}]"#)] {
        client.publish("windlass.hint", text.into()).await.unwrap();
    }
    for expected in [Hint::Job(one), Hint::Shards, Hint::Job(two)] {
        assert_eq!(timeout(SOON, hints.recv()).await.expect("a hint"), Ok(expected));
    }
}

pub async fn what_is_too_large_among_others_harms_none_of_them(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    let bus = connect(&server, Role::Coordinator).await;
    let (small, large, event) = (offer("a"), offer(&"x".repeat(2 * 1024 * 1024)), event(job(), 1));
    let sent = bus.send_all(&[ToSend::Offer(&large), ToSend::Event(&event), ToSend::Offer(&small)]).await;
    assert!(matches!(sent[..], [Err(Error::TooLarge(_)), Ok(()), Ok(())]), "{sent:?}");
    assert_eq!(offered(&bus.take(&lanes(["a"]), 1, SOON).await.unwrap()), [small]);
}

pub async fn strangers_among_the_requests_harm_nobody(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    let bus = connect(&server, Role::Coordinator).await;
    let (shard, id) = (Shard::new(7).expect("a shard"), worker());
    let requests = bus.serve(Service::Shard(shard)).await.unwrap();
    tokio::spawn(answer_all(requests, |request| format!("{:?}", request.to)));
    let client = server.client().await;

    for subject in ["windlass.shard.7.report.someone", "windlass.shard.7.gossip.x", "windlass.shard.7.report"] {
        client.publish(subject, Bytes::new()).await.unwrap();
        let asked = timeout(Duration::from_millis(100), client.request(subject, Bytes::new())).await;
        assert!(!matches!(asked, Ok(Ok(_))), "{subject} was answered");
    }
    // Neither do those who want no reply, nor those who say more than is allowed.
    client.publish(format!("windlass.shard.7.report.{id}"), Bytes::new()).await.unwrap();
    client.publish(format!("windlass.shard.7.report.{id}"), vec![0; 1024 * 1024].into()).await.unwrap();

    let to = Address::Report(shard, id);
    assert_eq!(bus.request(&to, Bytes::new(), SOON).await, Ok(Bytes::from(format!("{to:?}"))));
}

pub async fn a_new_offer_reaches_who_waits_within_milliseconds(version: Version) {
    const OFFERS: usize = 300;
    let Some(server) = Nats::start(version) else { return };
    let (bus, worker) = (connect(&server, Role::Coordinator).await, connect(&server, Role::Worker).await);
    let lanes = lanes(["a", "b", "c", "d"]);
    let mut took = Vec::new();
    for round in 0..OFFERS {
        let waiting = worker.take(&lanes, 4, SOON);
        tokio::pin!(waiting);
        if round % 10 == 0 {
            assert!(timeout(Duration::from_millis(20), &mut waiting).await.is_err());
        }
        let offer = offer(["a", "b", "c", "d"][round % 4]);
        let begun = clock::instant();
        let (placed, taken) = tokio::join!(bus.offer(&offer), waiting);
        took.push(begun.elapsed());
        let taken = taken.unwrap();
        assert_eq!((placed, offered(&taken)), (Ok(Placed::New), vec![offer]));
        taken.into_iter().for_each(shared::bus::Delivery::done);
    }
    took.sort_unstable();
    let at = |share: usize| took[OFFERS * share / 100];
    println!("from offer to take: p50 {:?}, p90 {:?}, p99 {:?}", at(50), at(90), at(99));
    assert!(at(50) < Duration::from_millis(60), "{:?}", at(50));
}

pub async fn many_offers_are_put_out_at_once(version: Version) {
    const OFFERS: usize = 5000;
    let Some(server) = Nats::start(version) else { return };
    let (bus, worker) = (connect(&server, Role::Coordinator).await, connect(&server, Role::Worker).await);
    let begun = clock::instant();
    let mut putting = JoinSet::new();
    for number in 0..OFFERS {
        let bus = Arc::clone(&bus);
        let offer = offer(&format!("tag-{}", number % 20));
        putting.spawn(async move { bus.offer(&offer).await });
    }
    for placed in putting.join_all().await {
        assert_eq!(placed, Ok(Placed::New));
    }
    println!("{OFFERS} offers on 20 lanes put out in {:?}", begun.elapsed());

    let lanes: Vec<_> = (0..20).flat_map(|tag| lanes([&*format!("tag-{tag}")])).collect();
    let (begun, mut taken) = (clock::instant(), 0);
    while taken < OFFERS {
        let some = worker.take(&lanes, 16, SOON).await.unwrap();
        assert!(!some.is_empty(), "{taken} of {OFFERS}");
        taken += some.len();
        some.into_iter().for_each(shared::bus::Delivery::done);
    }
    println!("and taken 16 at a time in {:?}", begun.elapsed());
    assert_eq!(taken, OFFERS);
}
