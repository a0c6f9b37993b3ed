//! Ids, times, periods and commits: each prints as it is read, and reads nothing else.

use proptest::prelude::*;
use uuid::Uuid;

use shared::id::{Actor, CommitId, JobId, SHARDS, Shard, WorkerId};
use shared::time::{NotAPeriod, NotATime, Period, Time};

use super::builders::{at, worker};

#[test]
fn a_minted_id_names_its_shard_and_is_a_uuid_of_version_7() {
    for shard in Shard::all() {
        let id = JobId::mint(shard, at(0), [0xff; 10]);
        assert_eq!(id.shard(), shard);
        assert_eq!(id.uuid().get_version_num(), 7);
        let bytes = *id.uuid().as_bytes();
        assert_eq!(u16::from_be_bytes([bytes[14], bytes[15]]) % SHARDS, shard.number(), "the last two bytes");
    }
    assert_eq!(Shard::all().count(), 256);
    assert_eq!(Shard::new(256), None);
}

#[test]
fn a_later_id_is_a_greater_one() {
    let (first, last) = (Shard::new(0).expect("a shard"), Shard::new(255).expect("a shard"));
    let millis = |millis: u64| at(0).plus(Period::from_millis(millis));
    for later in [1, 1000, 86_400_000] {
        assert!(JobId::mint(last, millis(0), [0xff; 10]) < JobId::mint(first, millis(later), [0; 10]));
    }
}

#[test]
fn an_id_is_read_in_its_hyphenated_form_alone() {
    let id = JobId::mint(Shard::new(9).expect("a shard"), at(0), [5; 10]);
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
    let simple = id.uuid().simple().to_string();
    for text in [
        "",
        "1",
        "null",
        &simple,
        &format!("{{{id}}}"),
        &format!("urn:uuid:{id}"),
        &format!("{id} "),
        "019b76da-a800-7505-8505-05050505050g",
    ] {
        assert!(text.parse::<JobId>().is_err(), "{text:?}");
    }
}

#[test]
fn an_actor_reads_back_as_it_was_written() {
    for actor in
        [Actor::Coordinator, Actor::Worker(worker(3)), Actor::Client(String::new()), Actor::Client("a:b".to_owned())]
    {
        assert_eq!(Actor::try_from(String::from(actor.clone())), Ok(actor));
    }
    for text in ["", "worker", "worker:", "worker:me", "somebody", "Coordinator"] {
        assert!(Actor::try_from(text.to_owned()).is_err(), "{text:?}");
    }
}

#[test]
fn a_commit_is_forty_or_sixty_four_hex_digits_in_lower_case() {
    for (text, is_one) in [
        ("a".repeat(40), true),
        ("0123456789abcdef".repeat(4), true),
        ("a".repeat(39), false),
        ("a".repeat(41), false),
        ("a".repeat(63), false),
        ("A".repeat(40), false),
        ("g".repeat(40), false),
        ("é".repeat(20), false),
        (String::new(), false),
    ] {
        assert_eq!(CommitId::try_from(text.clone()).is_ok(), is_one, "{text:?}");
    }
}

#[test]
fn a_time_is_rfc_3339_and_nothing_else() {
    for (text, printed) in [
        ("2026-12-01T08:00:00Z", "2026-12-01T08:00:00.000000Z"),
        ("2026-12-01t08:00:00z", "2026-12-01T08:00:00.000000Z"),
        ("2026-12-01T08:00:00.5+02:00", "2026-12-01T06:00:00.500000Z"),
        ("2026-12-01T08:00:00.123456789Z", "2026-12-01T08:00:00.123456Z"),
    ] {
        assert_eq!(text.parse::<Time>().map(|time| time.to_string()).as_deref(), Ok(printed), "{text}");
    }
    for text in [
        "",
        "now",
        "2026-12-01",
        "2026-12-01T08:00:00",
        "2026-12-01T08:00Z",
        "2026-13-01T08:00:00Z",
        "2026-02-30T08:00:00Z",
        "20261201T080000Z",
        "1796112000",
        "2026-12-01T08:00:00+02:00[Europe/Berlin]",
        "-002026-12-01T08:00:00Z",
        "2026-12-01T08:00:00Z ",
        "２026-12-01T08:00:00Z",
        "9999-12-31T28:59:59Z",
        "20260-12-01",
    ] {
        assert_eq!(text.parse::<Time>(), Err(NotATime::Form), "{text:?}");
    }
    for text in ["9999-12-31T23:59:59Z", "9999-12-31T08:00:00.5+02:00", "12026-12-01T08:00:00Z"] {
        assert_eq!(text.parse::<Time>(), Err(NotATime::TooLate), "{text:?}");
    }
}

#[test]
fn time_ends_where_it_can_still_be_written() {
    assert_eq!(Time::MAX.to_string(), "9999-12-30T22:00:00.000000Z");
    assert_eq!("9999-12-30T22:00:00.999999Z".parse(), Ok(Time::MAX));
    assert_eq!(Time::MAX.plus(Period::MAX), Time::MAX);
    assert_eq!(at(5).since(at(2)).as_secs(), 3);
    assert_eq!(at(2).since(at(5)).as_secs(), 0);
}

#[test]
fn a_period_is_a_sum_of_numbers_with_units() {
    let day = 24 * 60 * 60 * 1000;
    for (text, millis) in [
        ("500ms", 500),
        ("10s", 10_000),
        ("5m", 300_000),
        ("2h", 7_200_000),
        ("1d", day),
        ("1h30m", 5_400_000),
        ("30m1h", 5_400_000),
        ("1m1ms", 60_001),
        ("1s1s", 2000),
        ("0s", 0),
        ("0ms", 0),
        ("007s", 7000),
        ("365d", 365 * day),
        ("364d24h", 365 * day),
        ("31536000000ms", 365 * day),
    ] {
        assert_eq!(text.parse::<Period>().map(Period::millis), Ok(millis), "{text}");
    }
    for text in [
        "", "1", "s", "ms", "1 s", " 1s", "1s ", "-1s", "+1s", "1.5s", "1S", "1w", "1y", "1us", "1sm", "1s2", "٣s",
        "1e3s", "1s\0",
    ] {
        assert_eq!(text.parse::<Period>(), Err(NotAPeriod::Form), "{text:?}");
    }
    for text in [
        "366d",
        "365d1ms",
        "31536000001ms",
        "99999999999999999999d",
        "18446744073709551615ms",
        "9999999999999d9999999999999d",
    ] {
        assert_eq!(text.parse::<Period>(), Err(NotAPeriod::TooLong), "{text}");
    }
}

proptest! {
    #[test]
    fn a_period_reads_back_as_it_was_printed(millis in 0..=Period::MAX.millis()) {
        let period = Period::from_millis(millis);
        prop_assert_eq!(period.to_string().parse(), Ok(period));
    }

    #[test]
    fn a_time_reads_back_as_it_was_printed(micros in -62_000_000_000_000_000..=Time::MAX.micros()) {
        let time = Time::from_micros(micros);
        prop_assert_eq!(time.to_string().parse(), Ok(time));
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC*") {
        let _ = (text.parse::<Period>(), text.parse::<Time>(), text.parse::<JobId>(), text.parse::<WorkerId>());
        let _ = (CommitId::try_from(text.clone()), Actor::try_from(text));
    }

    #[test]
    fn an_id_reads_back_as_it_was_printed(number in any::<u128>()) {
        let id = JobId::from(Uuid::from_u128(number));
        prop_assert_eq!(id.to_string().parse(), Ok(id));
    }
}
