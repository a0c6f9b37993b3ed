//! Lanes: new ones, many of them, and crowds at one.

use std::collections::HashSet;
use std::time::Duration;

use shared::bus::{Delivery, Placed};
use shared::clock;
use shared::job::Offer;
use shared::spec::Priority;
use shared::wire::Lane;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::offers::{lanes, offer, offered, put, take_done};
use super::{Medium, SOON};

pub async fn an_offer_on_a_lane_that_nobody_has_seen_reaches_who_waits_for_it(medium: &dyn Medium) {
    let (worker, coordinator) = (medium.connect().await, medium.connect().await);
    let (offer, lanes) = (offer("never seen"), lanes(["never seen"]));
    let waiting = worker.take(&lanes, 1, SOON);
    tokio::pin!(waiting);
    assert!(timeout(Duration::from_millis(100), &mut waiting).await.is_err());

    let begun = clock::instant();
    assert_eq!(coordinator.offer(&offer).await, Ok(Placed::New));
    let taken = timeout(SOON / 2, waiting).await.expect("it is found").unwrap();

    println!("an offer on a new lane took {:?}", begun.elapsed());
    assert_eq!(offered(&taken), [offer]);
}

pub async fn the_order_of_tags_makes_no_other_lane(medium: &dyn Medium) {
    let bus = medium.connect().await;
    let tags = |tags: [&str; 2]| tags.map(str::to_owned).to_vec();
    let offer = Offer { tags: tags(["a", "b"]), ..offer("a") };
    bus.offer(&offer).await.unwrap();

    let lane = Lane { tags: tags(["a", "b"]), priority: Priority::Normal };
    assert_eq!(offered(&bus.take(&[lane], 1, SOON).await.unwrap()), [offer]);
}

pub async fn many_lanes_are_waited_for_at_once(medium: &dyn Medium) {
    const TAG_SETS: usize = 1000;
    let (worker, coordinator) = (medium.connect().await, medium.connect().await);
    let lane = |tag: usize, priority| Lane { tags: vec![format!("tag-{tag}")], priority };
    let tag_sets = || 0..TAG_SETS;
    let all: Vec<_> =
        Priority::ALL.into_iter().flat_map(|priority| tag_sets().map(move |tag| lane(tag, priority))).collect();
    // A few of them have offers, and so has one that nobody waits for.
    let mut expected = Vec::new();
    for (tag, priority) in [(1, Priority::Urgent), (700, Priority::High), (3, Priority::Low)] {
        let Lane { tags, priority } = lane(tag, priority);
        let offer = Offer { tags, priority, ..offer("a") };
        coordinator.offer(&offer).await.unwrap();
        expected.push(offer);
    }
    put(&*coordinator, 1, "other").await;

    let mut taken = Vec::new();
    while taken.len() < expected.len() {
        taken.extend(take_done(&*worker, &all, 10).await);
    }
    assert_eq!(taken, expected);

    let waiting = worker.take(&all, 1, SOON);
    tokio::pin!(waiting);
    assert!(timeout(Duration::from_millis(200), &mut waiting).await.is_err());
    let begun = clock::instant();
    coordinator.offer(&expected[2]).await.unwrap();
    assert_eq!(offered(&waiting.await.unwrap()), expected[2..]);
    println!("an offer on one of {} lanes took {:?}", all.len(), begun.elapsed());
}

pub async fn takers_in_a_crowd_get_each_offer_once(medium: &dyn Medium) {
    const TAKERS: usize = 6;
    const OFFERS: usize = 300;
    let coordinator = medium.connect().await;
    let mut takers = JoinSet::new();
    for number in 0..TAKERS {
        let worker = medium.connect().await;
        takers.spawn(async move {
            let mut taken = Vec::new();
            let quiet = Duration::from_secs(3);
            loop {
                let some = worker.take(&lanes(["a", "b"]), 1 + number, quiet).await.unwrap();
                if some.is_empty() {
                    return taken;
                }
                assert!(some.len() <= 1 + number, "{} is more than wanted", some.len());
                taken.extend(offered(&some));
                some.into_iter().for_each(Delivery::done);
            }
        });
    }

    let mut expected = put(&*coordinator, OFFERS / 2, "a").await;
    expected.extend(put(&*coordinator, OFFERS / 2, "b").await);

    let taken: Vec<Offer> = takers.join_all().await.into_iter().flatten().collect();
    assert_eq!(taken.len(), OFFERS, "each once");
    assert_eq!(taken.into_iter().collect::<HashSet<_>>(), expected.into_iter().collect::<HashSet<_>>());
}

pub async fn no_offer_is_lost_on_those_who_stop_waiting(medium: &dyn Medium) {
    let (coordinator, quitter, stayer) = (medium.connect().await, medium.connect().await, medium.connect().await);
    let lanes = lanes(["a"]);
    put(&*coordinator, 1, "a").await;
    take_done(&*stayer, &lanes, 1).await;

    for _ in 0..5 {
        // It waits, and then it doesn't any more: what comes goes to the other, and at once.
        let waiting = quitter.take(&lanes, 1, SOON);
        assert!(timeout(medium.settle_within() / 10, waiting).await.is_err());
        let offers = put(&*coordinator, 1, "a").await;
        let begun = clock::instant();
        assert_eq!(take_done(&*stayer, &lanes, 1).await, offers);
        assert!(begun.elapsed() < medium.settle_within() / 2, "{:?}", begun.elapsed());
    }
}
