//! Writes commands into the audit: all that wait at once, then what has gathered meanwhile, so that a lone command never
//! waits for company and many share one write.
//!
//! Whoever brings a line waits until it is there: no command is answered of which the audit knows nothing. A command and its
//! line are written side by side, because none of them is worth the other's wait: a line without its command says that it
//! was asked for.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::holdings::Holdings;
use crate::store::{AuditLine, Error, Store};

/// The most lines that wait; whoever comes then is told so.
const WAITING_MAX: usize = 4096;
/// The most lines in one write.
const LINES_MAX: usize = 500;

/// See the module.
pub struct AuditDesk {
    lines: mpsc::Sender<Waiting>,
}

struct Waiting {
    line: AuditLine,
    written: oneshot::Sender<Result<(), Error>>,
}

impl AuditDesk {
    /// A desk that writes on `runtime` until it is dropped.
    pub fn start(store: Arc<dyn Store>, holdings: Arc<Holdings>, runtime: &Handle) -> Self {
        let (lines, waiting) = mpsc::channel(WAITING_MAX);
        runtime.spawn(write(store, holdings, waiting));
        Self { lines }
    }

    /// Takes a line. What is returned resolves when it is in the audit, with the store's errors.
    ///
    /// # Errors
    /// Where too many wait already.
    pub fn note(&self, line: AuditLine) -> Result<impl Future<Output = Result<(), Error>> + use<>, Error> {
        let (written, answer) = oneshot::channel();
        let full = |_| Error::Unavailable("too many commands wait for their lines in the audit".to_owned());
        self.lines.try_send(Waiting { line, written }).map_err(full)?;
        let gone = |_| Err(Error::Unavailable("the audit isn't written any more".to_owned()));
        Ok(async move { answer.await.unwrap_or_else(gone) })
    }
}

async fn write(store: Arc<dyn Store>, holdings: Arc<Holdings>, mut waiting: mpsc::Receiver<Waiting>) {
    let mut all = Vec::new();
    while waiting.recv_many(&mut all, LINES_MAX).await > 0 {
        let (lines, written): (Vec<_>, Vec<_>) = all.drain(..).map(|one| (one.line, one.written)).unzip();
        let noted = store.note(holdings.id(), &lines).await;
        if let Err(error) = &noted {
            tracing::warn!(%error, lines = lines.len(), "writing commands into the audit");
        }
        for written in written {
            // Whoever has stopped waiting has answered already that nobody knows what became of it.
            let _ = written.send(noted.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::clock;
    use shared::id::{Actor, CoordinatorId};

    use super::*;
    use crate::caller::Caller;
    use crate::store::sqlite::SqliteStore;
    use crate::store::{Keys, Member, Ownership};

    #[tokio::test]
    async fn a_line_that_was_taken_is_written_and_without_a_place_there_is_none() {
        let directory = tempfile::TempDir::new().unwrap();
        let store = Arc::new(SqliteStore::open(&directory.path().join("windlass.db")).await.unwrap());
        let member = Member { id: CoordinatorId(clock::random_uuid()), address: String::new(), format: 1 };
        store.join(&member).await.unwrap();
        let desk = AuditDesk::start(store.clone(), Arc::new(Holdings::new(member.id)), &Handle::current());
        let by = Caller::from(Actor::Coordinator);
        let line = |n: usize| by.line(clock::now(), "job.cancel", "", n.to_string());
        // Nothing is written before somebody waits: this test has one thread.
        let taken: Vec<_> = (0..WAITING_MAX).map(|n| desk.note(line(n)).ok().unwrap()).collect();
        assert!(matches!(desk.note(line(0)).err(), Some(Error::Unavailable(_))));
        for written in taken {
            assert_eq!(written.await, Ok(()));
        }
        let lines = store.audited(None, u32::MAX).await.unwrap();
        let numbers: Vec<_> = lines.into_iter().rev().map(|line| line.outcome.parse::<usize>().unwrap()).collect();
        assert_eq!(numbers, (0..WAITING_MAX).collect::<Vec<_>>());
    }
}
