//! In which format is written, where programs of several versions take part: never in a higher one than all of them read.
//!
//! The number rises once, when the last one that couldn't read it has left, and never falls: whoever can't read what was
//! written takes no shard (the store sees to that, whatever is thought here), and isn't started.

use shared::bus::Hint;

use super::Keeper;
use crate::fault;
use crate::store::{Error, Member, Store};
use crate::{FORMAT, StartError};

/// The format that this program writes: the next one where a test wants this process to be of a later version.
pub fn ours() -> u32 {
    if fault::is_lost("format.later") { FORMAT + 1 } else { FORMAT }
}

/// Whether a coordinator that has just joined can read what was written; where it can't, it has left again.
pub async fn admit(store: &dyn Store, member: &Member) -> Result<(), StartError> {
    let written = store.renew(member.id).await?.written;
    if member.format >= written {
        return Ok(());
    }
    // Where that fails, the lease ends by itself.
    let _ = store.leave(member.id).await;
    Err(StartError::Outdated { written, ours: member.format })
}

impl Keeper {
    /// Says that a higher format is written from now on, where the plan says so.
    pub(super) async fn raise_format(&self, raise: Option<u32>) -> Result<(), Error> {
        let Some(format) = raise else { return Ok(()) };
        tracing::info!(format, "everybody reads this format: it is written from now on");
        self.parts.store.raise_format(format).await?;
        self.parts.bus.hint(Hint::Shards);
        Ok(())
    }
}
