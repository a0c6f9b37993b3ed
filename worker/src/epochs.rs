//! Which words of coordinators count: a shard's owner speaks under its epoch, and an epoch lower than the highest that was
//! heard of the shard is that of an owner which isn't one any more.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use shared::id::{Epoch, Shard};
use shared::wire::Word;

/// The highest epoch that was heard of each shard, since this start.
#[derive(Debug, Default)]
pub struct Epochs {
    highest: Mutex<HashMap<Shard, Epoch>>,
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
    /// What is said in a word about something in the shard `about`, if it counts.
    pub fn heed<T>(&self, about: Shard, word: Word<T>) -> Result<T, Unheeded> {
        let Word { shard, epoch, said } = word;
        if shard != about {
            return Err(Unheeded::Elsewhere { about, said: shard });
        }
        // A number in a table is whole after any panic.
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = highest.entry(shard).or_default();
        if epoch < *highest {
            return Err(Unheeded::Old { shard, said: epoch, highest: *highest });
        }
        *highest = epoch;
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_counts_unless_a_later_owner_was_heard() {
        let epochs = Epochs::default();
        let [one, two] = [1, 2].map(|shard| Shard::new(shard).unwrap());
        let word = |shard, epoch| Word { shard, epoch: Epoch(epoch), said: () };
        for epoch in [3, 3, 5] {
            assert_eq!(epochs.heed(one, word(one, epoch)), Ok(()));
        }
        let old = Unheeded::Old { shard: one, said: Epoch(4), highest: Epoch(5) };
        assert_eq!(epochs.heed(one, word(one, 4)), Err(old));
        assert_eq!(epochs.heed(two, word(two, 1)), Ok(()), "each shard has its own");
        assert_eq!(epochs.heed(one, word(two, 9)), Err(Unheeded::Elsewhere { about: one, said: two }));
        assert_eq!(epochs.heed(two, word(two, 2)), Ok(()), "a word that didn't count has moved nothing");
    }
}
