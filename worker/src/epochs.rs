//! Which words of coordinators count: a shard's owner speaks under its epoch, and an epoch lower than the highest that was
//! heard of the shard is that of an owner which isn't one any more.
//!
//! What was heard is in memory, but for what the spool says: each of its entries holds the highest epoch of its shard,
//! from the grant's on, and a start begins with those. An owner which isn't one any more and doesn't know it can still say
//! three things to a worker that was started again, and this is why the spool's are enough:
//!
//! - An answer to an outcome that is in the spool. Whoever owned the shard under the grant's epoch or a later one knows
//!   that the attempt was granted, and refuses its outcome only for what is committed; and to take it, it has to commit.
//!   Only one from before the grant refuses what it should take, and its epoch is lower than the entry's.
//! - An order, also in the answer to a heartbeat. It names the start that it is for; so it is about an attempt that was
//!   granted to this one, under an epoch that was heard with the grant.
//! - An answer to a new claim. A grant is said after its commit alone, and a refusal costs an offer, which is made again.
//!   Of a shard without an attempt in the spool a worker needs to know no more than one that is new.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shared::id::{CoordinatorId, Epoch, Shard};
use shared::wire::Word;

use crate::spool::Entry;

/// The highest epoch that was heard of each shard, and who spoke under it.
#[derive(Debug, Default)]
pub struct Epochs {
    known: Mutex<HashMap<Shard, Known>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    highest: Epoch,
    /// None where it hasn't named itself, or wasn't heard when it was spoken to.
    owner: Option<CoordinatorId>,
}

/// Why a word doesn't count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unheeded {
    #[error("a word under epoch {said} of shard {shard}, of which epoch {highest} was heard")]
    Old { shard: Shard, said: Epoch, highest: Epoch },
    #[error("a word of shard {said} about shard {about}")]
    Elsewhere { about: Shard, said: Shard },
}

impl Epochs {
    /// What an earlier start had heard of the shards of these attempts.
    pub fn left_in(entries: &[Entry]) -> Self {
        let mut known: HashMap<Shard, Known> = HashMap::new();
        for Entry { job, epoch, .. } in entries {
            let known = known.entry(job.shard()).or_default();
            known.highest = known.highest.max(*epoch);
        }
        Self { known: Mutex::new(known) }
    }

    /// The highest that was heard of the shard; zero, which nobody has, where nothing was.
    pub fn highest(&self, shard: Shard) -> Epoch {
        self.lock().get(&shard).copied().unwrap_or_default().highest
    }

    /// Who spoke for the shard last, where that one named itself.
    pub fn owner(&self, shard: Shard) -> Option<CoordinatorId> {
        self.lock().get(&shard).and_then(|known| known.owner)
    }

    /// `owner` doesn't answer for the shard any more, as it seems. Another one that was heard meanwhile is still known.
    pub fn forget_owner(&self, shard: Shard, owner: CoordinatorId) {
        if let Some(known) = self.lock().get_mut(&shard) {
            known.owner = known.owner.filter(|known| *known != owner);
        }
    }

    /// What is said in a word about something in the shard `about`, if it counts.
    pub fn heed<T>(&self, about: Shard, word: Word<T>) -> Result<T, Unheeded> {
        let Word { shard, epoch, owner, said } = word;
        if shard != about {
            return Err(Unheeded::Elsewhere { about, said: shard });
        }
        let mut known = self.lock();
        let known = known.entry(shard).or_default();
        if epoch < known.highest {
            return Err(Unheeded::Old { shard, said: epoch, highest: known.highest });
        }
        // An epoch has one owner, who doesn't name itself in every word.
        let before = known.owner.filter(|_| epoch == known.highest);
        *known = Known { highest: epoch, owner: owner.or(before) };
        Ok(said)
    }

    /// What stands in the table is whole after any panic.
    fn lock(&self) -> MutexGuard<'_, HashMap<Shard, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use shared::clock;
    use shared::id::{Attempt, JobId};
    use shared::time::Time;

    use super::*;

    #[test]
    fn a_word_counts_unless_a_later_owner_was_heard() {
        let epochs = Epochs::default();
        let [one, two] = [1, 2].map(|shard| Shard::new(shard).unwrap());
        let word = |shard, epoch| Word { shard, epoch: Epoch(epoch), owner: None, said: () };
        for epoch in [3, 3, 5] {
            assert_eq!(epochs.heed(one, word(one, epoch)), Ok(()));
        }
        let old = Unheeded::Old { shard: one, said: Epoch(4), highest: Epoch(5) };
        assert_eq!(epochs.heed(one, word(one, 4)), Err(old));
        assert_eq!(epochs.heed(two, word(two, 1)), Ok(()), "each shard has its own");
        assert_eq!(epochs.heed(one, word(two, 9)), Err(Unheeded::Elsewhere { about: one, said: two }));
        assert_eq!(epochs.heed(two, word(two, 2)), Ok(()), "a word that didn't count has moved nothing");
        assert_eq!([one, two].map(|shard| epochs.highest(shard)), [Epoch(5), Epoch(2)]);
    }

    #[test]
    fn the_owner_is_who_named_itself_last_under_the_highest_epoch() {
        let epochs = Epochs::default();
        let shard = Shard::new(1).unwrap();
        let [one, two] = [(); 2].map(|()| CoordinatorId(clock::random_uuid()));
        let heard = |epoch, owner| {
            let _ = epochs.heed(shard, Word { shard, epoch: Epoch(epoch), owner, said: () });
            epochs.owner(shard)
        };
        assert_eq!(heard(3, None), None);
        assert_eq!(heard(3, Some(one)), Some(one));
        assert_eq!(heard(3, None), Some(one), "an order doesn't say who gives it");
        assert_eq!(heard(2, Some(two)), Some(one), "who isn't heeded isn't believed to be the owner");
        assert_eq!(heard(4, None), None, "the next owner is of an older format");
        assert_eq!(heard(5, Some(two)), Some(two));
        epochs.forget_owner(shard, one);
        assert_eq!(epochs.owner(shard), Some(two), "another was heard meanwhile");
        epochs.forget_owner(shard, two);
        assert_eq!(epochs.owner(shard), None);
        assert_eq!(epochs.highest(shard), Epoch(5));
    }

    #[test]
    fn a_start_begins_with_the_highest_epoch_that_the_spool_has_of_each_shard() {
        let [one, two, none] = [1, 2, 3].map(|shard| Shard::new(shard).unwrap());
        let entry = |shard, n, epoch| {
            let job = JobId::mint(shard, Time::from_micros(1_000_000), [n; 10]);
            Entry { job, attempt: Attempt(1), epoch: Epoch(epoch), cgroup: None, outcome: None }
        };
        let epochs = Epochs::left_in(&[entry(one, 1, 4), entry(one, 2, 5), entry(one, 3, 0), entry(two, 4, 2)]);
        assert_eq!([one, two, none].map(|shard| epochs.highest(shard)), [Epoch(5), Epoch(2), Epoch(0)]);
        let word = |epoch| Word { shard: one, epoch: Epoch(epoch), owner: None, said: () };
        let old = Unheeded::Old { shard: one, said: Epoch(4), highest: Epoch(5) };
        assert_eq!(epochs.heed(one, word(4)), Err(old));
        assert_eq!(epochs.heed(one, word(5)), Ok(()));
    }
}
