//! The judge, held against histories that are true, in which it finds nothing, and against falsified ones, in which it finds
//! the one promise that each breaks, and no other.

use std::collections::BTreeSet;

use tests::chaos::history::History;
use tests::chaos::judge::{judge, rules};

use cast::Cast;
use truth::Truth;

mod cast;
mod excuses;
mod falsified;
mod lives;
mod truth;

/// A way in which a true history is made false, and the rule that it breaks.
pub struct Falsehood {
    pub rule: &'static str,
    pub what: &'static str,
    pub done: fn(&mut Cast),
}

/// The rules that the judge finds broken.
pub fn broken(history: &History) -> BTreeSet<&'static str> {
    judge(history).into_iter().map(|violation| violation.rule).collect()
}

/// Asserts that nothing but `expected` is found, and says what is.
#[track_caller]
pub fn assert_broken(truth: &Truth, expected: &[&'static str], what: &str) {
    let found: Vec<String> = judge(&truth.history).iter().map(ToString::to_string).collect();
    let expected = expected.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(broken(&truth.history), expected, "{what}: {}", found.join("\n"));
}

#[test]
fn a_true_history_breaks_no_rule() {
    let Cast { truth, .. } = Cast::new();
    assert_broken(&truth, &[], "a true history");
}

#[test]
fn each_falsified_history_breaks_its_one_rule() {
    let mut wrong = Vec::new();
    for falsehood in falsified::all() {
        let mut cast = Cast::new();
        (falsehood.done)(&mut cast);
        if broken(&cast.truth.history) != BTreeSet::from([falsehood.rule]) {
            let found: Vec<String> = judge(&cast.truth.history).iter().map(|found| format!("\n    {found}")).collect();
            wrong.push(format!("{} ({}): {}", falsehood.what, falsehood.rule, found.concat()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_is_broken_by_a_falsified_history() {
    let tried: BTreeSet<&str> = falsified::all().map(|falsehood| falsehood.rule).collect();
    let there: BTreeSet<&str> = rules().map(|rule| rule.name).collect();
    assert_eq!(tried, there);
    assert_eq!(there.len(), rules().count(), "two rules have one name");
}

#[test]
fn evidence_is_capped_and_the_others_are_counted() {
    let mut cast = Cast::new();
    cast.truth.history.end.files = (0..25).map(|number| format!("spool/{number}")).collect();
    let found = judge(&cast.truth.history);
    assert_eq!(found.len(), 11);
    assert_eq!(found[10].to_string(), "no file of a job is left: and 15 more");
}

#[test]
fn a_history_is_judged_the_same_after_it_was_written_to_a_file() {
    let mut cast = Cast::new();
    cast.truth.history.end.offers = vec!["an offer".to_owned(); 3];
    let written = serde_json::to_string(&cast.truth.history).unwrap();
    let read: History = serde_json::from_str(&written).unwrap();
    assert_eq!(judge(&read), judge(&cast.truth.history));
}
