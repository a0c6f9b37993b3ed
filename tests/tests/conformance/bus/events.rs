//! Events to subscribers, hints to coordinators.

use shared::bus::{Hint, ToSend};
use shared::clock;
use shared::cloud_event::CloudEvent;
use shared::id::{Actor, Attempt, JobId, Seq, Shard};
use shared::job::{Event, EventKind};
use shared::time::Time;
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

use super::offers::{lanes, offer, take_done};
use super::{Medium, SOON};

pub async fn the_events_of_a_job_come_in_order_to_every_subscriber(medium: &dyn Medium) {
    const EVENTS: u64 = 200;
    let publisher = medium.connect().await;
    let (mut buses, mut subscribers) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let bus = medium.connect().await;
        subscribers.push(bus.events().await.unwrap());
        buses.push(bus);
    }
    let jobs = [job(), job()];

    for seq in 1..=EVENTS {
        for job in jobs {
            publisher.publish(&event(job, seq)).await.unwrap();
        }
    }

    for subscriber in &mut subscribers {
        let mut heard = Vec::new();
        for _ in 0..2 * EVENTS {
            heard.push(next(subscriber).await);
        }
        for job in jobs {
            let of_job: Vec<_> = heard.iter().filter(|event| event.subject == job).cloned().collect();
            assert_eq!(of_job, (1..=EVENTS).map(|seq| heard_as(job, seq)).collect::<Vec<_>>());
        }
    }
}

pub async fn a_subscriber_hears_what_is_published_from_then_on(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let job = job();
    bus.publish(&event(job, 1)).await.unwrap();
    let mut subscriber = bus.events().await.unwrap();

    bus.publish(&event(job, 2)).await.unwrap();

    assert_eq!(next(&mut subscriber).await, heard_as(job, 2));
}

pub async fn what_is_sent_together_arrives_each_by_itself(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let mut subscriber = bus.events().await.unwrap();
    let (there, new) = (offer("together"), offer("together"));
    bus.offer(&there).await.unwrap();
    let events: Vec<Event> = (0..100).map(|_| event(job(), 1)).collect();

    let mut messages: Vec<ToSend<'_>> = events.iter().map(ToSend::Event).collect();
    messages.insert(50, ToSend::Offer(&new));
    messages.push(ToSend::Offer(&there));
    assert_eq!(bus.send_all(&messages).await, vec![Ok(()); 102], "one that is there counts as well");
    assert_eq!(bus.send_all(&[]).await, []);

    for event in &events {
        assert_eq!(next(&mut subscriber).await, CloudEvent::from(event));
    }
    let mut taken = Vec::new();
    while taken.len() < 2 {
        taken.extend(take_done(&*bus, &lanes(["together"]), 2).await);
    }
    assert_eq!(taken, [there, new]);
}

pub async fn a_hint_reaches_everybody(medium: &dyn Medium) {
    let (one, other) = (medium.connect().await, medium.connect().await);
    let mut listeners = [one.hints(), other.hints()];
    let hint = Hint::Job(job());

    other.hint(hint);

    for listener in &mut listeners {
        assert_eq!(next(listener).await, hint);
    }
}

pub async fn a_hint_of_shards_is_no_hint_of_a_job(medium: &dyn Medium) {
    let (one, other) = (medium.connect().await, medium.connect().await);
    let mut listener = one.hints();
    let hints = [Hint::Shards, Hint::Job(job()), Hint::Shards];

    for hint in hints {
        other.hint(hint);
    }

    for hint in hints {
        assert_eq!(next(&mut listener).await, hint);
    }
}

pub async fn publishing_needs_no_listener(medium: &dyn Medium) {
    let bus = medium.connect().await;
    bus.hint(Hint::Job(job()));
    assert_eq!(bus.publish(&event(job(), 1)).await, Ok(()));
}

async fn next<T: Clone>(receiver: &mut Receiver<T>) -> T {
    timeout(SOON, receiver.recv()).await.expect("something to hear").expect("nothing is missed")
}

pub fn job() -> JobId {
    JobId::mint(Shard::new(1).expect("a shard"), Time::from_micros(0), clock::random())
}

/// The event as a subscriber gets it.
fn heard_as(job: JobId, seq: u64) -> CloudEvent {
    CloudEvent::from(&event(job, seq))
}

pub fn event(job: JobId, seq: u64) -> Event {
    let kind = EventKind::Started {};
    Event { job, seq: Seq(seq), at: Time::from_micros(0), attempt: Attempt(1), actor: Actor::Coordinator, kind }
}
