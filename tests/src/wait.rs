//! The one way to wait in a test: for something to become true, with a deadline. [`eventually`] is for tests that may block
//! their thread, [`until`] for those on a runtime.

use std::thread;
use std::time::{Duration, Instant};

use shared::clock;

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(10);

/// The same for [`between_looks`].
const BETWEEN: Duration = Duration::from_millis(200);

/// The same for [`between_samples`].
const SAMPLES: Duration = Duration::from_millis(25);

/// What `probe` finds, once it finds something; says how long that took.
///
/// # Panics
/// When it finds nothing within `deadline`. Deadlines are generous, ten times what is promised: a test waits for something to
/// happen, it doesn't measure.
pub fn eventually<T>(deadline: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = clock::instant();
    loop {
        if let Some(found) = probe() {
            println!("{what}: after {} ms", begun.elapsed().as_millis());
            return found;
        }
        assert!(begun.elapsed() < deadline, "{what}: not within {} ms", deadline.as_millis());
        thread::sleep(EVERY);
    }
}

/// Lets time go by because the story is about that time: an outage of so many seconds, a while in which something must
/// not happen. What will happen is waited for with [`eventually`].
pub fn pass(time: Duration, what: &str) {
    println!("{what}: {} ms go by", time.as_millis());
    thread::sleep(time);
}

/// From one look to the next of a loop that waits in its own way, for several things at once or without an end.
pub fn between_looks() {
    thread::sleep(BETWEEN);
}

/// The same for one that measures: short enough to be exact, long enough to cost nothing.
pub fn between_samples() {
    thread::sleep(SAMPLES);
}

/// Waits for a moment at which something is due, as a load that keeps its pace does; at once where that is over.
pub fn until_instant(due: Instant) {
    thread::sleep(due.saturating_duration_since(clock::instant()));
}

/// Like [`eventually`], on a runtime, whose other tasks go on meanwhile.
///
/// # Panics
/// When `probe` finds nothing within `deadline`.
pub async fn until<T>(deadline: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = clock::instant();
    loop {
        if let Some(found) = probe() {
            println!("{what}: after {} ms", begun.elapsed().as_millis());
            return found;
        }
        assert!(begun.elapsed() < deadline, "{what}: not within {} ms", deadline.as_millis());
        tokio::time::sleep(EVERY).await;
    }
}

/// Like [`until`], for what is asked of somebody.
///
/// # Panics
/// When `probe` finds nothing within `deadline`.
pub async fn until_told<T>(deadline: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = clock::instant();
    loop {
        if let Some(found) = probe().await {
            println!("{what}: after {} ms", begun.elapsed().as_millis());
            return found;
        }
        assert!(begun.elapsed() < deadline, "{what}: not within {} ms", deadline.as_millis());
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::time::Duration;

    use super::{eventually, until};

    #[test]
    fn what_comes_in_time_is_returned_and_what_does_not_fails_by_name() {
        let mut looks = 0;
        let found = eventually(Duration::from_secs(10), "the third look", || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, 3);

        let missed = catch_unwind(|| eventually(Duration::from_millis(30), "the end of days", || None::<()>));
        let message = missed.expect_err("it never comes").downcast::<String>().expect("a message");
        assert_eq!(*message, "the end of days: not within 30 ms");
    }

    #[tokio::test]
    async fn other_tasks_go_on_while_one_waits() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move { sender.send(7).await });
        assert_eq!(until(Duration::from_secs(10), "the other task", || receiver.try_recv().ok()).await, 7);
    }
}
