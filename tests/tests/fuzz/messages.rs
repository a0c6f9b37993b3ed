//! What goes over the bus, both ways: every type of the wire, what proves it, subjects, and what NATS itself answers.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use shared::bus::nats::{jetstream, subjects};
use shared::bus::{Address, Hint, Service};
use shared::cloud_event::CloudEvent;
use shared::id::{Attempt, CoordinatorId, Epoch};
use shared::job::{Event, Offer, Rejection};
use shared::proof::ProofKey;
use shared::secret::Secret;
use shared::wire::{
    self, Answer, Answers, Control, Enrol, Enrolment, Heard, Heartbeat, HeartbeatReply, Hello, KeyReply, KeyRequest,
    LogAnswer, LogBatch, LogReply, Reports, ShardAnswers, Welcome, Word, Words, WorkerMode,
};

use uuid::Uuid;

use super::campaign::{Bounds, campaign};
use super::samples::{
    all, chunk, events, grants, instance, job, offer, recipient, reports, request, shard, stop, word, worker,
};
use super::secrets::sealed;

/// A server takes a message of 1 MiB, as the bus asks of it; ours have half of that.
const MESSAGE: Bounds = Bounds { largest: 1024 * 1024, peak: 48, total: 96, fixed: 1 << 20 };

/// What was read must be written and read again as the same, or else two of us would understand it differently.
fn messages<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, samples: &[T]) {
    campaign(name, MESSAGE, &all(samples), |bytes| {
        let Ok(message) = wire::decode::<T>(bytes) else { return };
        let again = wire::decode::<T>(&wire::encode(&message)).expect("what we write can be read");
        assert_eq!(again, message);
    });
}

#[test]
fn any_enrolment_is_read_or_refused() {
    let token = Secret::new("0123456789abcdef".to_owned());
    messages("an enrolment", &[Enrol { token, name: "host".to_owned(), recipient: recipient() }]);
    let enrolled = Enrolment::Enrolled { worker: worker(), secret: sealed().0 };
    messages("the answer to an enrolment", &[enrolled, Enrolment::Refused { why: "no".to_owned() }]);
}

#[test]
fn any_hello_is_read_or_refused() {
    let tags = vec!["linux".to_owned(), "x86_64".to_owned()];
    let (worker, instance) = (worker(), instance());
    messages(
        "a hello",
        &[Hello { worker, instance, start: 3, tags: tags.clone(), slots: 4, running: 1, draining: false }],
    );
    messages("a welcome", &[Welcome { tag_sets: vec![vec![], tags], mode: WorkerMode::Paused, revoked: true }]);
}

#[test]
fn any_report_is_read_or_refused() {
    messages("reports", &[Reports { worker: worker(), instance: instance(), reports: reports() }]);
    messages("a report", &reports());
    let mut answers: Vec<Answer> = grants().into_iter().map(|grant| Answer::Granted(Box::new(grant))).collect();
    answers.extend([Answer::Taken, Answer::Unknown, Answer::TryAgain]);
    answers.push(Answer::Refused { why: Rejection::NotQueued });
    let owner = Some(CoordinatorId(Uuid::from_u128(9)));
    let named = Word { owner, ..word(Answers { answers: answers.clone() }) };
    messages("answers to reports", &[word(Answers { answers: answers.clone() }), named]);
    let words =
        answers.chunks(3).map(|answers| ShardAnswers { shard: shard(), epoch: Epoch(3), answers: answers.to_vec() });
    let words = Words { owner: CoordinatorId(Uuid::from_u128(9)), words: words.collect() };
    messages("answers to reports about several shards", &[words]);
}

#[test]
fn any_heartbeat_is_read_or_refused() {
    let attempts = vec![(job(), Attempt(1)), (job(), Attempt(2))];
    messages("a heartbeat", &[Heartbeat { worker: worker(), instance: instance(), attempts }]);
    messages("the answer to a heartbeat", &[word(HeartbeatReply { stop: vec![stop(), stop()] })]);
}

#[test]
fn any_batch_of_log_is_read_or_refused() {
    messages("a batch of log", &[LogBatch { worker: worker(), chunks: vec![chunk(), chunk()] }]);
    let answers = vec![LogAnswer::Stored, LogAnswer::Refused, LogAnswer::TryAgain];
    messages("the answer to a batch of log", &[word(LogReply { answers })]);
    campaign("the lines of a chunk", MESSAGE, &all(&[chunk()]), |bytes| {
        let Ok(chunk) = wire::decode::<shared::log::Chunk>(bytes) else { return };
        assert_eq!(chunk.lines_after(0).count() as u64, chunk.lines(), "every line is shown");
        assert_eq!(chunk.lines_after(u64::MAX).count(), 0);
    });
}

#[test]
fn any_request_for_a_key_is_read_or_refused() {
    let (worker, instance, key) = (worker(), instance(), "app".to_owned());
    let asked = KeyRequest {
        worker,
        instance,
        request: request(),
        job: job(),
        attempt: Attempt(1),
        key,
        recipient: recipient(),
    };
    messages("a request for a key", &[asked]);
    let why = || "no".to_owned();
    let replies = [
        KeyReply::Sealed { key: sealed().0 },
        KeyReply::NotRegistered {},
        KeyReply::Denied { why: why() },
        KeyReply::Unavailable { why: why() },
    ];
    messages("the answer about a key", &replies.map(word));
}

#[test]
fn any_order_is_read_or_refused() {
    let look = Control::LookForKey { job: job(), attempt: Attempt(1) };
    messages("an order", &[Control::Stop(word(stop())), look, Control::SayHello {}]);
    messages("the answer to an order", &[Heard {}]);
}

#[test]
fn any_offer_hint_or_event_is_read_or_refused() {
    messages::<Offer>("an offer", &[offer()]);
    messages("a hint", &[Hint::Job(job()), Hint::Shards, Hint::Keys, Hint::Roster]);
    messages::<Event>("an event", &events());
    messages("an event for subscribers", &events().iter().map(CloudEvent::from).collect::<Vec<_>>());
}

#[test]
fn any_word_names_a_shard_that_there_is() {
    let beyond = json!({"shard": shared::id::SHARDS, "epoch": 1});
    campaign("a word's shard", MESSAGE, &all(&[json!(word(Heard {})), beyond]), |bytes| {
        if let Ok(Word::<Heard> { shard, .. }) = wire::decode(bytes) {
            assert!(shard.number() < shared::id::SHARDS, "shard {shard}");
        }
    });
}

#[test]
fn no_spoiled_message_proves_its_sender() {
    let (key, to) = (ProofKey::of(&Secret::new("one".to_owned())), Address::Report(shard(), worker()));
    let proved = key.prove(&to, b"a message of some length");
    campaign("a proof", MESSAGE, &[proved.to_vec()], |bytes| {
        let opened = key.open(&to, &Bytes::copy_from_slice(bytes));
        assert!(opened.is_none() || proved == bytes, "a forged proof");
    });
}

#[test]
fn any_subject_is_one_of_ours_or_none() {
    let (shard, worker) = (shard(), worker());
    let addresses = [
        Address::Enrol,
        Address::Hello(worker),
        Address::Report(shard, worker),
        Address::Heartbeat(shard, worker),
        Address::Log(shard, worker),
        Address::Key(shard, worker),
        Address::Control(worker),
    ];
    let mut samples: Vec<Vec<u8>> = addresses.iter().map(|to| subjects::of(to).into_bytes()).collect();
    samples.push(subjects::served(Service::Hello).0.into_bytes());
    samples.push(subjects::offer(&offer()).into_bytes());
    let lane = subjects::lane_of(&offer());
    let news = |what| format!("$JS.EVENT.ADVISORY.CONSUMER.{what}.WINDLASS_OFFERS.{}", lane.as_str()).into_bytes();
    samples.extend(["CREATED", "DELETED"].map(news));
    let bounds = Bounds { largest: 64 * 1024, peak: 4, total: 8, fixed: 1 << 16 };
    campaign("a subject", bounds, &samples, |bytes| {
        let Ok(subject) = std::str::from_utf8(bytes) else { return };
        if let Some(address) = subjects::address(subject) {
            assert_eq!(subjects::of(&address), subject);
        }
        drop((subjects::lane_on(subject), subjects::consumer_news(subject)));
    });
}

#[test]
fn any_answer_of_the_server_is_read_or_refused() {
    let samples = [
        json!({"error": {"code": 503, "err_code": 10077, "description": "maximum messages per subject exceeded"}}),
        json!({"error": {"code": 404, "err_code": 10059, "description": "stream not found"}, "type": "x"}),
        json!({"stream": "WINDLASS_OFFERS", "seq": 1}),
        json!({"total": 1, "offset": 0, "consumers": [{"name": "x", "config": {"ack_wait": 10}}]}),
        json!({"config": {"name": "WINDLASS_EVENTS"}, "created": "2026-01-01T00:00:00Z", "state": {"consumer_count": 3}}),
    ];
    // It is kept as a document, whose smallest values take the most.
    let bounds = Bounds { peak: 200, total: 250, ..MESSAGE };
    campaign("an answer of the server", bounds, &all(&samples), |bytes| {
        if let Err(jetstream::Error::Refused(fault)) = jetstream::answer(bytes) {
            let told = [fault.is_still_there(), fault.is_broken(), fault.is_no_stream(), fault.is_no_message()];
            assert!(told.iter().filter(|told| **told).count() <= 1, "{fault}");
        }
    });
}
