//! Programs that want to become workers.

use std::collections::HashSet;

use bytes::Bytes;
use shared::bus::{Address, Error, Service};

use super::requests::{answer_all, worker};
use super::{Medium, SOON};

pub async fn a_program_that_wants_to_become_a_worker_is_answered_by_one_coordinator(medium: &dyn Medium) {
    let (one, other, program) = (medium.connect().await, medium.connect().await, medium.connect().await);
    for (bus, name) in [(&one, "one"), (&other, "other")] {
        let requests = bus.serve(Service::Enrol).await.unwrap();
        tokio::spawn(answer_all(requests, move |request| {
            assert_eq!(request.to, Address::Enrol);
            name.to_owned()
        }));
    }

    let mut heard = HashSet::new();
    for _ in 0..40 {
        heard.insert(program.request(&Address::Enrol, Bytes::new(), SOON).await.unwrap());
    }
    assert_eq!(heard, HashSet::from(["one", "other"].map(Bytes::from)));
}

pub async fn an_enrolment_is_no_hello(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let requests = bus.serve(Service::Hello).await.unwrap();
    tokio::spawn(answer_all(requests, |_| "hello".to_owned()));

    let enrol = bus.request(&Address::Enrol, Bytes::new(), SOON).await;
    assert_eq!(enrol, Err(Error::NoResponder(Address::Enrol)));
    let hello = bus.request(&Address::Hello(worker()), Bytes::new(), SOON).await;
    assert_eq!(hello, Ok(Bytes::from_static(b"hello")));
}
