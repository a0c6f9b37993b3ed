//! What a rule has found: the first few pieces of evidence in full, and a count of the others.

/// How much evidence of one rule is shown.
const SHOWN_MAX: usize = 10;

/// See the module.
#[derive(Debug, Default)]
pub struct Finding {
    shown: Vec<String>,
    others: usize,
}

impl Finding {
    /// Notes one more who broke the rule; the words are only made where they are shown.
    pub fn add(&mut self, evidence: impl FnOnce() -> String) {
        if self.shown.len() < SHOWN_MAX { self.shown.push(evidence()) } else { self.others += 1 }
    }

    /// Notes it unless the rule was kept.
    pub fn unless(&mut self, kept: bool, evidence: impl FnOnce() -> String) {
        if !kept {
            self.add(evidence);
        }
    }

    /// All that is to be shown.
    pub fn evidence(self) -> Vec<String> {
        let Self { mut shown, others } = self;
        if others > 0 {
            shown.push(format!("and {others} more"));
        }
        shown
    }
}
