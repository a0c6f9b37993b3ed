//! The judge: which promise a history shows to be broken.
//!
//! Each rule is a small function over the history's [`Index`]: it has a name in words that don't change, and says who broke it and what
//! shows that. Rules stand together by what they look at. None of them looks at more than it must: an hour's history is judged in seconds.

use std::fmt;

use super::history::History;
use finding::Finding;
use index::Index;

mod accepted;
mod answers;
mod attempts;
mod cancels;
mod contact;
mod ends;
mod fences;
mod finding;
mod index;
mod leaks;
mod looks;
mod order;
mod outcomes;
mod overlaps;
mod places;
mod reasons;
mod sightings;
mod steps;
mod survivors;
mod timeline;
mod told;
mod tries;
mod waits;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The promise, in words that don't change.
    pub rule: &'static str,
    /// Who broke it, and what shows it.
    pub evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.evidence)
    }
}

/// A promise, and how it is looked whether it was kept.
#[derive(Debug)]
pub struct Rule {
    pub name: &'static str,
    look: fn(&Index<'_>, &mut Finding),
}

const GROUPS: [&[Rule]; 15] = [
    &accepted::RULES,
    &ends::RULES,
    &timeline::RULES,
    &told::RULES,
    &answers::RULES,
    &looks::RULES,
    &steps::RULES,
    &fences::RULES,
    &reasons::RULES,
    &tries::RULES,
    &waits::RULES,
    &overlaps::RULES,
    &cancels::RULES,
    &survivors::RULES,
    &leaks::RULES,
];

/// Every promise that is looked at.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    GROUPS.into_iter().flatten()
}

/// Every broken promise that the history shows; of each only the first few who broke it, and how many others there are.
pub fn judge(history: &History) -> Vec<Violation> {
    let index = Index::of(history);
    let judged = rules().flat_map(|rule| {
        let mut finding = Finding::default();
        (rule.look)(&index, &mut finding);
        finding.evidence().into_iter().map(|evidence| Violation { rule: rule.name, evidence })
    });
    judged.collect()
}
