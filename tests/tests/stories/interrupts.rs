//! What stops `windlass run` from outside, and that nothing of its job is left then.

use std::time::Duration;

use nix::sys::signal::Signal;
use tests::process::{Mark, escape, is_alive, noted, send, send_to_group};
use tests::wait::eventually;
use tests::windlass::{Place, Running};

/// Ten times what the end of a tree may take once nobody waits for it any more.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// A `run` whose job has left a process behind that is hard to get rid of, and goes on.
struct Story {
    place: Place,
    mark: Mark,
    run: Running,
    escaped: i32,
}

impl Story {
    /// `rest` is what the job does after its escape.
    fn start(rest: &str) -> Self {
        let (place, mark) = (Place::new(), Mark::fresh());
        let note = place.path("escaped");
        let (name, value) = mark.entry();
        let (entry, script) = (format!("{name}={value}"), format!("{}; {rest}", escape(&note)));
        // A grace that no test waits for: what ends the job is not its end.
        let command = place.command(&["--grace", "1h", "--env", &entry, "--", "sh", "-c", &script]);
        let run = Running::start(command);
        let escaped = noted(&note);
        assert!(is_alive(escaped) && mark.carriers().contains(&escaped));
        Self { place, mark, run, escaped }
    }

    fn until_said(&self, words: &str) {
        eventually(Duration::from_mins(1), words, || self.run.stderr().contains(words).then_some(()));
    }

    /// Waits for the end: 130, with nothing left at that very moment.
    fn ends(self) {
        let ended = self.run.finish();
        assert!(self.mark.is_gone(), "{}", ended.said());
        assert!(!is_alive(self.escaped));
        assert_eq!(ended.code, Some(130), "{}", ended.said());
        assert!(self.place.left().is_empty());
    }
}

#[test]
fn ctrl_c_ends_a_job_that_obeys_and_whatever_it_left() {
    // As a terminal sends it, to the whole group, and as another program may.
    for send in [send_to_group, send] {
        let (place, mark) = (Place::new(), Mark::fresh());
        let note = place.path("escaped");
        let (name, value) = mark.entry();
        let entry = format!("{name}={value}");
        let obeys = format!("setsid sh -c 'sh -c \"echo \\$\\$ > {}; exec sleep 1000\" &'; sleep 1000", note.display());
        let run = Running::start(place.command(&["--env", &entry, "--", "sh", "-c", &obeys]));
        let escaped = noted(&note);
        send(run.pid(), Signal::SIGINT);
        let ended = run.finish();
        assert!(mark.is_gone(), "{}", ended.said());
        assert!(!is_alive(escaped));
        assert_eq!(ended.code, Some(130), "{}", ended.said());
        assert!(ended.said().contains("canceling; Ctrl-C again forces"), "{}", ended.said());
        assert!(place.left().is_empty());
    }
}

#[test]
fn a_second_ctrl_c_forces_what_ignores_the_first() {
    for send in [send_to_group, send] {
        let story = Story::start("trap '' TERM; while :; do sleep 1; done");
        send(story.run.pid(), Signal::SIGINT);
        story.until_said("canceling; Ctrl-C again forces");
        assert!(is_alive(story.escaped), "the first only asks");
        send(story.run.pid(), Signal::SIGINT);
        story.ends();
    }
}

#[test]
fn a_job_says_goodbye_when_it_is_canceled() {
    let place = Place::new();
    let note = place.path("pid");
    let script = format!("trap 'echo goodbye; exit 3' TERM; echo $$ > {}; while :; do sleep 0.1; done", note.display());
    let run = Running::start(place.command(&["--", "sh", "-c", &script]));
    noted(&note);
    send_to_group(run.pid(), Signal::SIGINT);
    let ended = run.finish();
    assert_eq!((ended.code, ended.out().as_str()), (Some(130), "goodbye\n"), "{}", ended.said());
}

#[test]
fn nothing_of_a_job_outlives_a_run_that_is_killed() {
    let story = Story::start("sleep 1000");
    send(story.run.pid(), Signal::SIGKILL);
    story.mark.until_gone(GONE_WITHIN);
    assert!(!is_alive(story.escaped));
    assert_eq!(story.run.finish().code, None);
}

#[test]
fn sigterm_cancels_like_ctrl_c() {
    let story = Story::start("sleep 1000");
    send(story.run.pid(), Signal::SIGTERM);
    story.until_said("canceling; Ctrl-C again forces");
    // Right after the first it would still be the same wish.
    eventually(Duration::from_mins(1), "a second one forces", || {
        send(story.run.pid(), Signal::SIGTERM);
        story.run.stderr().contains("forcing").then_some(())
    });
    story.ends();
}
