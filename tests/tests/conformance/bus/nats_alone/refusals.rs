//! Servers and streams that don't fit.

use serde_json::json;
use shared::bus::nats::{NatsBus, NatsOptions, Role, StartError};
use tests::nats::{Nats, Setup, Version};
use tests::wait::until;

use super::super::SOON;
use super::super::offers::offer;
use super::{connect, options, refused};

/// The stream of offers as it has to be, but for what is given.
fn offers_stream(other: &serde_json::Value) -> serde_json::Value {
    let mut config = json!({
        "name": "WINDLASS_OFFERS", "subjects": ["windlass.offer.>"], "retention": "workqueue", "discard": "new",
        "discard_new_per_subject": true, "max_msgs_per_subject": 1, "max_age": 86_400_000_000_000_u64,
        "max_msgs": -1, "max_bytes": -1, "max_consumers": -1, "storage": "file", "num_replicas": 1,
    });
    for (field, value) in other.as_object().expect("fields") {
        config[field] = value.clone();
    }
    config
}

pub async fn a_stream_that_is_otherwise_is_refused_by_name(version: Version) {
    for (field, found, expected) in [
        ("max_msgs_per_subject", json!(2), "1"),
        ("max_age", json!(60_000_000_000_u64), "86400000000000"),
        ("max_msgs", json!(10), "-1"),
        ("retention", json!("limits"), "\"workqueue\""),
    ] {
        let Some(server) = Nats::start(version) else { return };
        server.ask("STREAM.CREATE.WINDLASS_OFFERS", offers_stream(&json!({ field: found }))).await;

        let why = refused(&server).await;

        println!("{why}");
        for part in ["WINDLASS_OFFERS", field, &found.to_string(), expected, "nats stream rm"] {
            assert!(why.contains(part), "{part} isn't in: {why}");
        }
        // The remedy helps.
        server.ask("STREAM.DELETE.WINDLASS_OFFERS", json!(null)).await;
        assert!(connect(&server, Role::Coordinator).await.link().up);
    }
}

pub async fn a_consumer_that_is_otherwise_is_refused_by_name(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    let bus = connect(&server, Role::Coordinator).await;
    bus.offer(&offer("a")).await.unwrap();
    let options = options(&server, Role::Coordinator);
    let other = NatsOptions { settle_within: 2 * options.settle_within, ..options };

    let Err(StartError::Refused(why)) = NatsBus::connect(other).await else { panic!("it was let in") };

    println!("{why}");
    for part in ["consumer", "ack_wait", "2000000000", "4000000000", "nats consumer rm WINDLASS_OFFERS"] {
        assert!(why.contains(part), "{part} isn't in: {why}");
    }
}

pub async fn a_consumer_of_somebody_else_is_refused(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    drop(connect(&server, Role::Coordinator).await);
    let consumer = json!({ "stream_name": "WINDLASS_OFFERS", "config": {
        "durable_name": "spy", "name": "spy", "filter_subject": "windlass.offer.>", "ack_policy": "explicit",
    }});
    server.ask("CONSUMER.CREATE.WINDLASS_OFFERS.spy.windlass.offer.>", consumer).await;

    let why = refused(&server).await;

    assert!(why.contains("\"spy\"") && why.contains("nats consumer rm WINDLASS_OFFERS spy"), "{why}");
}

pub async fn a_server_that_does_not_fit_is_refused_by_both_roles(version: Version) {
    for (setup, part) in [
        (Setup { jetstream: false, ..Setup::default() }, "JetStream is off"),
        (Setup { max_payload: 1024 * 1024 - 1, ..Setup::default() }, "1048575 bytes"),
    ] {
        let Some(server) = Nats::with(version, setup) else { return };
        for role in [Role::Coordinator, Role::Worker] {
            let Err(StartError::Refused(why)) = NatsBus::connect(options(&server, role)).await else {
                panic!("a {role:?} was let in")
            };
            assert!(why.contains(part), "{why}");
        }
    }
}

pub async fn what_is_no_address_is_refused(_: Version) {
    for urls in ["", " , ", "nats://", "http://localhost:4222", "nats://one:4222,::"] {
        let connected = NatsBus::connect(NatsOptions::new(urls, Role::Worker)).await;
        assert!(matches!(connected, Err(StartError::Address(..))), "{urls:?}");
    }
}

pub async fn a_stream_that_is_changed_later_makes_the_bus_unfit_until_it_is_changed_back(version: Version) {
    let Some(server) = Nats::start(version) else { return };
    let bus = connect(&server, Role::Coordinator).await;
    assert!(bus.link().up);

    server.ask("STREAM.UPDATE.WINDLASS_OFFERS", offers_stream(&json!({ "max_msgs": 10 }))).await;
    until(SOON, "the bus is unfit", || (!bus.link().fit).then_some(())).await;
    assert!(bus.link().up, "workers are still heard");
    assert!(bus.offer(&offer("a")).await.is_err());

    server.ask("STREAM.UPDATE.WINDLASS_OFFERS", offers_stream(&json!({}))).await;
    until(SOON, "the bus is fit", || bus.link().fit.then_some(())).await;
    bus.offer(&offer("a")).await.unwrap();
    assert_eq!(bus.link().breaks, 0, "nothing broke");
}
