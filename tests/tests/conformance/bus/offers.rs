//! Offers: in which order they are taken, when they come again, and when they don't.

use std::time::Duration;

use shared::bus::{Bus, Delivery, Placed};
use shared::clock;
use shared::id::{Attempt, JobId, Shard};
use shared::job::Offer;
use shared::spec::Priority;
use shared::time::Time;
use shared::wire::Lane;
use tokio::time::timeout;

use super::{Medium, SOON};

/// No time to wait: what is there is there.
const AT_ONCE: Duration = Duration::ZERO;

pub async fn an_offer_that_is_still_there_is_not_doubled(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let offer = offer("a");

    assert_eq!(bus.offer(&offer).await, Ok(Placed::New));
    assert_eq!(medium.connect().await.offer(&offer).await, Ok(Placed::StillThere));
    let held = bus.take(&lanes(["a"]), 10, SOON).await.unwrap();
    assert_eq!(offered(&held), std::slice::from_ref(&offer));
    // In a worker's hand it is still there.
    assert_eq!(bus.offer(&offer).await, Ok(Placed::StillThere));
}

pub async fn the_oldest_offer_of_a_lane_comes_first(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let offers = put(&*bus, 20, "a").await;

    let mut taken = Vec::new();
    while taken.len() < offers.len() {
        taken.extend(take_done(&*bus, &lanes(["a"]), 3).await);
    }

    assert_eq!(taken, offers);
}

pub async fn an_earlier_lane_comes_first(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let (low, high) = (put(&*bus, 2, "low").await, put(&*bus, 2, "high").await);
    let urgent = Offer { priority: Priority::Urgent, ..offer("low") };
    bus.offer(&urgent).await.unwrap();
    let [lane_high, lane_low] = lanes(["high", "low"]);
    let lane_urgent = Lane { priority: Priority::Urgent, ..lane_low.clone() };

    let taken = offered(&bus.take(&[lane_urgent, lane_high, lane_low], 4, SOON).await.unwrap());

    assert_eq!(taken, [vec![urgent], high, low[..1].to_vec()].concat());
}

pub async fn no_more_offers_are_taken_than_wanted(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let offers = put(&*bus, 5, "a").await;

    let none = bus.take(&lanes(["a"]), 0, AT_ONCE).await.unwrap();
    let two = bus.take(&lanes(["a"]), 2, SOON).await.unwrap();
    let rest = bus.take(&lanes(["a"]), 10, SOON).await.unwrap();

    assert_eq!((offered(&none).len(), offered(&two), offered(&rest)), (0, offers[..2].to_vec(), offers[2..].to_vec()));
}

pub async fn offers_of_other_lanes_stay_where_they_are(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let both = Offer { tags: vec!["a".to_owned(), "b".to_owned()], ..offer("a") };
    let none = Offer { tags: vec![], ..offer("a") };
    let high = Offer { priority: Priority::High, ..offer("a") };
    for offer in [&both, &none, &high] {
        bus.offer(offer).await.unwrap();
    }

    assert_eq!(offered(&bus.take(&lanes(["a", "b"]), 10, AT_ONCE).await.unwrap()), []);
    let lane = Lane { tags: both.tags.clone(), priority: Priority::Normal };
    assert_eq!(offered(&bus.take(&[lane], 10, SOON).await.unwrap()), [both]);
}

pub async fn an_offer_goes_to_one_of_those_who_wait(medium: &dyn Medium) {
    let (one, other) = (medium.connect().await, medium.connect().await);
    let lanes = lanes(["a"]);
    let (offer, half) = (offer("a"), medium.settle_within() / 2);
    let (mut first, mut second) = (Box::pin(one.take(&lanes, 1, SOON)), Box::pin(other.take(&lanes, 1, SOON)));
    // Both wait before there is anything to take.
    let brief = Duration::from_millis(50);
    let (early, also_early) = tokio::join!(timeout(brief, &mut first), timeout(brief, &mut second));
    assert!(early.is_err() && also_early.is_err());

    let begun = clock::instant();
    assert_eq!(one.offer(&offer).await, Ok(Placed::New));

    let (taken, empty_handed) = tokio::select! {
        taken = &mut first => (taken.unwrap(), second),
        taken = &mut second => (taken.unwrap(), first),
    };
    assert_eq!(offered(&taken), [offer]);
    // On a machine that has stood still for so long it may come again by now.
    let other = timeout(half, empty_handed).await;
    assert!(other.is_err() || begun.elapsed() >= medium.settle_within());
    taken.into_iter().for_each(Delivery::done);
}

pub async fn a_take_waits_for_a_new_offer(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let offer = offer("b");
    let lanes = lanes(["a", "b"]);
    let waiting = bus.take(&lanes, 2, SOON);
    tokio::pin!(waiting);
    // It is waiting before there is anything to take.
    assert!(timeout(Duration::from_millis(50), &mut waiting).await.is_err());

    bus.offer(&offer).await.unwrap();

    let taken = timeout(SOON / 2, waiting).await.expect("woken by the offer").unwrap();
    assert_eq!(offered(&taken), [offer]);
}

pub async fn a_take_without_offers_ends_after_its_wait(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let begun = clock::instant();

    let taken = bus.take(&lanes(["a"]), 1, Duration::from_millis(50)).await.unwrap();

    assert!(taken.is_empty());
    assert!((Duration::from_millis(50)..SOON).contains(&begun.elapsed()));
}

pub async fn an_offer_that_is_done_can_be_put_out_anew(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let offer = offer("a");
    bus.offer(&offer).await.unwrap();
    take_done(&*bus, &lanes(["a"]), 1).await;

    // The word that it is done travels on its own.
    let anew = async {
        while bus.offer(&offer).await == Ok(Placed::StillThere) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, anew).await.expect("done");

    assert_eq!(take_done(&*bus, &lanes(["a"]), 10).await, [offer]);
    assert_never_again(medium, &*bus, "a").await;
}

pub async fn an_offer_that_is_given_back_comes_again_after_its_delay(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let offer = offer("a");
    bus.offer(&offer).await.unwrap();
    let delay = medium.settle_within() / 3;
    let begun = clock::instant();
    take_one(&*bus, "a").await.back(delay);

    let again = take_one(&*bus, "a").await;

    assert_eq!(again.offer, offer);
    assert!((delay..SOON).contains(&begun.elapsed()));
}

pub async fn an_offer_that_is_not_settled_comes_again(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let offer = offer("a");
    bus.offer(&offer).await.unwrap();
    let begun = clock::instant();
    let held = take_one(&*bus, "a").await;

    let again = take_one(&*bus, "a").await;

    assert_eq!(again.offer, offer);
    assert!((medium.settle_within()..SOON).contains(&begun.elapsed()));
    // The first holder's word comes too late to matter.
    held.back(AT_ONCE);
    again.done();
    assert_never_again(medium, &*bus, "a").await;
}

pub async fn an_offer_whose_holder_forgets_it_comes_again(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let offer = offer("a");
    bus.offer(&offer).await.unwrap();
    drop(take_one(&*bus, "a").await);

    assert_eq!(take_one(&*bus, "a").await.offer, offer);
}

pub async fn a_withdrawn_offer_is_not_delivered(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let offers = put(&*bus, 3, "a").await;

    bus.withdraw(&offers[1]).await.unwrap();
    // There is nothing to take back of one that never was.
    bus.withdraw(&offer("a")).await.unwrap();

    let taken = bus.take(&lanes(["a"]), 10, SOON).await.unwrap();
    assert_eq!(offered(&taken), [offers[0].clone(), offers[2].clone()]);
}

pub async fn an_offer_withdrawn_from_a_hand_does_not_come_again(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let offers = put(&*bus, 3, "a").await;
    let mut held = bus.take(&lanes(["a"]), 3, SOON).await.unwrap();

    for offer in &offers {
        bus.withdraw(offer).await.unwrap();
    }
    held.remove(0).back(AT_ONCE);
    drop(held.remove(0));

    assert_never_again(medium, &*bus, "a").await;
}

pub async fn an_offer_withdrawn_and_put_out_anew_is_delivered_once(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let offer = offer("a");
    bus.offer(&offer).await.unwrap();
    bus.withdraw(&offer).await.unwrap();

    assert_eq!(bus.offer(&offer).await, Ok(Placed::New));

    assert_eq!(offered(&bus.take(&lanes(["a"]), 10, SOON).await.unwrap()), [offer]);
}

pub async fn an_offer_put_out_anew_while_its_old_self_is_in_a_hand_is_delivered_once(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let offer = offer("a");
    bus.offer(&offer).await.unwrap();
    let old = take_one(&*bus, "a").await;
    bus.withdraw(&offer).await.unwrap();
    assert_eq!(bus.offer(&offer).await, Ok(Placed::New));

    old.back(AT_ONCE);
    let new = take_one(&*bus, "a").await;

    assert_eq!(offered(&bus.take(&lanes(["a"]), 10, medium.settle_within() / 4).await.unwrap()), []);
    new.done();
    assert_never_again(medium, &*bus, "a").await;
}

/// As when one that an older version made is made again.
pub async fn an_offer_that_says_something_else_is_still_the_same_one(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let plain = offer("a");
    let vague = Offer { has_secrets: true, ..plain.clone() };
    assert_eq!(bus.offer(&vague).await, Ok(Placed::New));

    assert_eq!(bus.offer(&plain).await, Ok(Placed::StillThere));
    bus.withdraw(&plain).await.unwrap();
    assert_eq!(bus.offer(&plain).await, Ok(Placed::New));

    assert_eq!(take_done(&*bus, &lanes(["a"]), 10).await, [plain]);
}

pub async fn the_offer_of_the_next_attempt_is_another_one(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let first = offer("a");
    let next = Offer { attempt: first.attempt.next(), ..first.clone() };
    bus.offer(&first).await.unwrap();

    assert_eq!(bus.offer(&next).await, Ok(Placed::New));
    bus.withdraw(&first).await.unwrap();

    assert_eq!(offered(&bus.take(&lanes(["a"]), 10, SOON).await.unwrap()), [next]);
}

/// Nothing comes for as long as something forgotten would take to come again.
pub async fn assert_never_again(medium: &dyn Medium, bus: &dyn Bus, tag: &str) {
    let taken = bus.take(&lanes([tag]), 10, 2 * medium.settle_within()).await.unwrap();
    assert_eq!(offered(&taken), []);
}

pub async fn take_one(bus: &dyn Bus, tag: &str) -> Delivery {
    bus.take(&lanes([tag]), 1, SOON).await.unwrap().pop().expect("an offer")
}

/// Takes offers and is done with them.
pub async fn take_done(bus: &dyn Bus, lanes: &[Lane], most: usize) -> Vec<Offer> {
    let taken = bus.take(lanes, most, SOON).await.unwrap();
    let offers = offered(&taken);
    taken.into_iter().for_each(Delivery::done);
    offers
}

pub async fn put(bus: &dyn Bus, count: usize, tag: &str) -> Vec<Offer> {
    let offers: Vec<_> = std::iter::repeat_with(|| offer(tag)).take(count).collect();
    for offer in &offers {
        assert_eq!(bus.offer(offer).await, Ok(Placed::New));
    }
    offers
}

pub fn offer(tag: &str) -> Offer {
    let shard = Shard::new(1).expect("a shard");
    let job = JobId::mint(shard, Time::from_micros(0), clock::random());
    Offer { job, attempt: Attempt(1), tags: vec![tag.to_owned()], priority: Priority::Normal, has_secrets: false }
}

pub fn lanes<const N: usize>(tags: [&str; N]) -> [Lane; N] {
    tags.map(|tag| Lane { tags: vec![tag.to_owned()], priority: Priority::Normal })
}

pub fn offered(deliveries: &[Delivery]) -> Vec<Offer> {
    deliveries.iter().map(|delivery| delivery.offer.clone()).collect()
}
