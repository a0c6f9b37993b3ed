//! What reads bytes from outside and isn't public: for the tests that feed it rubbish, and in no release.

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::keeper::protocol::{Broken, Event, Incoming, Order};

pub use crate::checkout::heard::Heard;
pub use crate::checkout::remote::{choose, names};
pub use crate::checkout::trouble::{of as trouble, reason, submodule, without_passwords};
pub use crate::identity::{Identity, count_start};
pub use crate::keeper::cgroup::parent_of;
pub use crate::keeper::tree::parsed;
pub use crate::output::mask::{Forms, Masker};
pub use crate::output::segment::Segmenter;
use crate::spool::found;
pub use crate::spool::record::{Record, framed};
pub use crate::spool::{Entry, Spool};
pub use crate::ssh_agent::SshAgent;

/// What is in the spool in that directory, also while somebody is using it: it is only looked at.
///
/// # Errors
/// When something can't be read, as when the writer has just removed it: then it is read again.
pub fn spooled(dir: &Path) -> io::Result<Vec<Entry>> {
    Ok(found::in_dir(dir)?.entries.into_values().collect())
}

/// How many orders a keeper takes out of what arrives in these pieces.
///
/// # Errors
/// Where it isn't frames of them.
pub fn orders<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<usize, Broken> {
    frames::<Order>(pieces)
}

/// How many events a worker takes out of what arrives from its keeper in these pieces.
///
/// # Errors
/// Where it isn't frames of them.
pub fn events<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<usize, Broken> {
    frames::<Event>(pieces)
}

fn frames<'a, T: DeserializeOwned>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<usize, Broken> {
    let (mut incoming, mut count) = (Incoming::<T>::default(), 0);
    for piece in pieces {
        incoming.bytes.extend_from_slice(piece);
        while incoming.next()?.is_some() {
            count += 1;
        }
    }
    Ok(count)
}
