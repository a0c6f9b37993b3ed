//! Streams and consumers that vanish or are full, and messages that aren't ours.

use serde_json::{Value, json};
use shared::bus::nats::{NatsBus, NatsOptions, Role};
use shared::bus::{Bus, Error, Placed};
use shared::clock;
use shared::job::Offer;
use std::time::Duration;
use tests::nats::{Nats, Version, dealt_with};
use tokio::time::timeout;

use super::super::SOON;
use super::super::offers::{lanes, offer, offered, put, take_done, take_one};
use super::{SETTLE_WITHIN, connect, options};

/// Puts an offer out as its owner does: again and again until it is there.
async fn insist(bus: &dyn Bus, offer: &Offer) {
    let insisting = async {
        while let Err(error) = bus.offer(offer).await {
            println!("not yet: {error}");
            let _ = timeout(Duration::from_millis(50), std::future::pending::<()>()).await;
        }
    };
    timeout(SOON, insisting).await.expect("it is taken");
}

async fn lost(bus: &dyn Bus, times: u64) {
    let mut lost = bus.offers_lost();
    timeout(SOON, lost.wait_for(|lost| *lost == times)).await.expect("it is noticed").expect("a bus");
}

async fn messages(server: &Nats) -> u64 {
    let info = server.ask("STREAM.INFO.WINDLASS_OFFERS", Value::Null).await;
    info["state"]["messages"].as_u64().expect("a stream")
}

pub async fn a_deleted_stream_is_made_again_and_its_offers_are_counted_as_lost(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    let (bus, worker) = (connect(&server, Role::Coordinator).await, connect(&server, Role::Worker).await);
    let offers = put(&*bus, 3, "a").await;
    let held = take_one(&*worker, "a").await;
    assert_eq!(*bus.offers_lost().borrow(), 0);

    for stream in ["WINDLASS_OFFERS", "WINDLASS_EVENTS"] {
        server.ask(&format!("STREAM.DELETE.{stream}"), Value::Null).await;
    }
    lost(&*bus, 1).await;

    // A word about what is gone harms nobody.
    held.done();
    for offer in &offers {
        insist(&*bus, offer).await;
    }
    let mut taken = Vec::new();
    while taken.len() < offers.len() {
        taken.extend(take_done(&*worker, &lanes(["a"]), 3).await);
    }
    assert_eq!(taken, offers);
    assert_eq!(*bus.offers_lost().borrow(), 1, "once");
}

pub async fn an_offer_is_taken_after_its_stream_was_deleted_and_made_by_another(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    let (one, other) = (connect(&server, Role::Coordinator).await, connect(&server, Role::Coordinator).await);
    let worker = connect(&server, Role::Worker).await;
    for bus in [&one, &other] {
        put(&**bus, 1, "a").await;
    }
    let lanes = lanes(["a"]);
    take_done(&*worker, &lanes, 1).await;
    take_done(&*worker, &lanes, 1).await;
    let waiting = worker.take(&lanes, 1, 2 * SOON);
    tokio::pin!(waiting);
    assert!(timeout(Duration::from_millis(100), &mut waiting).await.is_err());

    server.ask("STREAM.DELETE.WINDLASS_OFFERS", Value::Null).await;
    lost(&*one, 1).await;
    lost(&*other, 1).await;
    let offer = offer("a");
    insist(&*one, &offer).await;

    assert_eq!(offered(&timeout(SOON, waiting).await.expect("woken").unwrap()), [offer]);
}

pub async fn a_deleted_consumer_is_made_again_and_loses_no_offer(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    let (bus, worker) = (connect(&server, Role::Coordinator).await, connect(&server, Role::Worker).await);
    let lanes = lanes(["a"]);
    put(&*bus, 1, "a").await;
    take_done(&*worker, &lanes, 1).await;
    let names = server.ask("CONSUMER.NAMES.WINDLASS_OFFERS", Value::Null).await;
    let name = names["consumers"][0].as_str().expect("a consumer").to_owned();

    // One offer is put out while nobody waits, one while somebody waits in vain.
    let before = put(&*bus, 1, "a").await;
    server.ask(&format!("CONSUMER.DELETE.WINDLASS_OFFERS.{name}"), Value::Null).await;
    let begun = clock::instant();
    assert_eq!(take_done(&*worker, &lanes, 1).await, before);
    println!("an offer whose consumer was deleted took {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

    let waiting = worker.take(&lanes, 1, 2 * SOON);
    tokio::pin!(waiting);
    assert!(timeout(Duration::from_millis(100), &mut waiting).await.is_err());
    server.ask(&format!("CONSUMER.DELETE.WINDLASS_OFFERS.{name}"), Value::Null).await;
    let after = put(&*bus, 1, "a").await;
    assert_eq!(offered(&timeout(SOON, waiting).await.expect("woken").unwrap()), after);
    assert_eq!(*bus.offers_lost().borrow(), 0, "none was lost");
}

pub async fn a_store_that_was_wiped_is_noticed(version: Version) {
    let Some(mut server) = Nats::start(version) else { return };
    let bus = connect(&server, Role::Coordinator).await;
    let offers = put(&*bus, 3, "a").await;

    server.stop();
    server.wipe();
    server.start_again();
    lost(&*bus, 1).await;

    insist(&*bus, &offers[0]).await;
    assert_eq!(take_done(&*bus, &lanes(["a"]), 10).await, offers[..1]);
    assert_eq!(bus.link().breaks, 1);
}

pub async fn a_full_stream_is_not_still_there(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    // One that doesn't look at the stream meanwhile, and so doesn't refuse it.
    let rarely = NatsOptions { look_every: Duration::from_hours(1), ..options(&server, Role::Coordinator) };
    let bus = NatsBus::connect(rarely).await.expect("a server that fits");
    let first = offer("a");
    bus.offer(&first).await.unwrap();
    let info = server.ask("STREAM.INFO.WINDLASS_OFFERS", Value::Null).await;
    let mut config = info["config"].clone();
    config["max_msgs"] = json!(1);
    server.ask("STREAM.UPDATE.WINDLASS_OFFERS", config).await;

    assert!(matches!(bus.offer(&offer("a")).await, Err(Error::Busy(_))));
    assert_eq!(bus.offer(&first).await, Ok(Placed::StillThere));
}

pub async fn what_is_no_offer_is_thrown_away(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    let bus = connect(&server, Role::Coordinator).await;
    let real = put(&*bus, 1, "a").await;
    let subject = {
        let got = server.ask("STREAM.MSG.GET.WINDLASS_OFFERS", json!({ "seq": 1 })).await;
        got["message"]["subject"].as_str().expect("a subject").to_owned()
    };
    // On the lane of the real one: no JSON, one for another job, and a subject that is none.
    let client = server.client().await;
    let other = subject.replace(&real[0].job.to_string(), &offer("a").job.to_string());
    let third = subject.replace(&real[0].job.to_string(), &offer("a").job.to_string());
    let lie = serde_json::to_vec(&offer("a")).unwrap();
    for (subject, body) in [(other, b"what?".to_vec()), (third, lie), (format!("{subject}.more"), b"{}".to_vec())] {
        client.publish(subject, body.into()).await.unwrap();
    }
    dealt_with(&client).await;
    let all = async { while messages(&server).await < 4 {} };
    timeout(SOON, all).await.expect("all are there");

    assert_eq!(take_done(&*bus, &lanes(["a"]), 1).await, real);
    assert_eq!(take_done_soon(&*bus).await, []);
    let gone = async { while messages(&server).await > 0 {} };
    timeout(SOON, gone).await.expect("all are gone");
}

async fn take_done_soon(bus: &dyn Bus) -> Vec<Offer> {
    offered(&bus.take(&lanes(["a"]), 10, SETTLE_WITHIN).await.unwrap())
}

pub async fn a_worker_makes_nothing(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    let worker = connect(&server, Role::Worker).await;
    assert!(worker.link().fit);

    let taken = worker.take(&lanes(["a", "b"]), 1, Duration::from_millis(100)).await.unwrap();

    assert_eq!(offered(&taken), []);
    assert_eq!(server.ask("STREAM.NAMES", Value::Null).await["total"], json!(0));
}
