//! How steps note what they do: a file of shell functions that each step reads first.
//!
//! A line is one write to a file that is only ever appended to: `MICROSECONDS WHAT JOB ATTEMPT STEP FENCE`, and for an
//! overlap the other attempt's number behind that.
//!
//! Whether another attempt is still there is a matter of locks. Each step of each attempt has a file of its own, which it
//! locks for itself alone through a descriptor that everything it starts inherits, so that the kernel gives the lock back when
//! the last of them is gone. Having locked its own, it tries those of the job's other attempts, with shared locks, which don't
//! hinder each other: of two attempts that begin at once, at least one sees the other. Whatever a step left behind may still be
//! there when the next step of its attempt begins; that is nobody else's lock.

use std::fs;
use std::path::{Path, PathBuf};

use crate::chaos::history::Key;

/// The file of functions, in the directory of notes.
const FUNCTIONS: &str = ".noting";
/// Holds a directory of locks for each job.
const LOCKS: &str = ".locks";

/// `$key` names the notes. A lock that can't be tried ends the step with a code that no job asks for.
const SHELL: &str = r#"note() {
  now=$(date +%s%N)
  echo "${now%???} $1 $WINDLASS_JOB_ID $WINDLASS_ATTEMPT $WINDLASS_STEP $WINDLASS_FENCE${2:+ $2}" >> "$notes/$key"
}
locks="$notes/.locks/$WINDLASS_JOB_ID"
mkdir -p "$locks"
exec 9> "$locks/$WINDLASS_ATTEMPT.$WINDLASS_STEP"
flock -w 5 9 || :
for other in "$locks"/*; do
  holder=${other##*/}
  holder=${holder%.*}
  if [ "$holder" != "$WINDLASS_ATTEMPT" ]; then
    tried=0
    flock -n -s -E 75 "$other" true || tried=$?
    case $tried in
      0) ;;
      75) note overlap "$holder" ;;
      *) exit 99 ;;
    esac
  fi
done
note begin
"#;

/// Where steps note what they do.
#[derive(Debug, Clone)]
pub struct Noting {
    functions: PathBuf,
}

impl Noting {
    /// Lays down what the steps read.
    ///
    /// # Panics
    /// When the directory can't be written.
    pub fn in_directory(notes: &Path) -> Self {
        fs::create_dir_all(notes.join(LOCKS)).expect("a directory of locks");
        let functions = notes.join(FUNCTIONS);
        fs::write(&functions, format!("notes='{}'\n{SHELL}", notes.display())).expect("a file of functions");
        Self { functions }
    }

    /// The script of a step that notes its beginning, does `work`, notes its end and exits.
    pub fn script(&self, key: &Key, work: &str, exit: i32) -> String {
        let end = if exit == 0 { String::new() } else { format!("exit {exit}\n") };
        format!("key='{}'\n. '{}'\n{work}\nnote end\n{end}", key.0, self.functions.display())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use super::Noting;
    use crate::chaos::evidence::notes;
    use crate::chaos::history::{Id, Key, Note, Noted};
    use crate::process::Owned;
    use crate::wait::eventually;

    fn begun(script: &str, attempt: u32, step: u32) -> Child {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-e", "-c", script]).stdin(Stdio::null());
        let attempt = attempt.to_string();
        for (name, value) in [("JOB_ID", "a-job"), ("ATTEMPT", &attempt), ("STEP", &step.to_string()), ("FENCE", "7")] {
            shell.env(format!("WINDLASS_{name}"), value);
        }
        shell.spawn().expect("a shell")
    }

    fn words(noted: &[Note]) -> Vec<(Noted, u32, u32)> {
        noted.iter().map(|note| (note.what, note.attempt, note.step)).collect()
    }

    #[test]
    fn an_attempt_is_seen_by_the_next_one_and_not_by_its_own_next_step() {
        let dir = tempfile::tempdir().expect("a directory");
        let (noting, key) = (Noting::in_directory(dir.path()), Key("a".to_owned()));
        let read = || notes::read(dir.path()).remove(&key).unwrap_or_default();
        let release = dir.path().join(".release");
        let waits = format!("sh -c 'while [ ! -e \"{}\" ]; do sleep 0.01; done' &", release.display());
        let quick = noting.script(&key, "true", 0);
        assert!(begun(&noting.script(&key, &waits, 0), 1, 0).wait().expect("its end").success());
        // What the first step left behind holds its lock still.
        assert!(begun(&quick, 1, 1).wait().expect("its end").success());
        assert_eq!(begun(&noting.script(&key, "true", 3), 2, 0).wait().expect("its end").code(), Some(3));
        let first = [(Noted::Begin, 1, 0), (Noted::End, 1, 0), (Noted::Begin, 1, 1), (Noted::End, 1, 1)];
        let second = [(Noted::Overlap { holder: 1 }, 2, 0), (Noted::Begin, 2, 0), (Noted::End, 2, 0)];
        assert_eq!(words(&read()), [&first[..], &second[..]].concat());
        assert_eq!((&read()[0].job, read()[0].fence), (&Id("a-job".to_owned()), 7));

        std::fs::write(&release, "").expect("a file");
        let alone = eventually(Duration::from_secs(20), "nothing of the first attempt is left", || {
            assert!(begun(&quick, 3, 0).wait().expect("its end").success());
            let noted = words(&read());
            let last = noted.len() - 3;
            (!matches!(noted[last].0, Noted::Overlap { .. })).then_some(noted[last + 1..].to_vec())
        });
        assert_eq!(alone, [(Noted::Begin, 3, 0), (Noted::End, 3, 0)]);
    }

    #[test]
    fn of_two_attempts_that_begin_at_once_one_sees_the_other_and_neither_sees_one_that_is_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let noting = Noting::in_directory(dir.path());
        for round in 0..20 {
            let (key, locks) = (Key(format!("a-{round}")), dir.path().join(".locks/a-job"));
            std::fs::create_dir(&locks).expect("a directory of locks");
            for step in 0..10 {
                std::fs::write(locks.join(format!("1.{step}")), "").expect("a lock that nobody has");
            }
            let script = noting.script(&key, "sleep 0.2", 0);
            let mut both = [2, 3].map(|attempt| Owned(begun(&script, attempt, 0)));
            for shell in &mut both {
                assert!(shell.0.wait().expect("its end").success());
            }
            let noted = notes::read(dir.path()).remove(&key).expect("notes");
            let overlaps: Vec<_> = noted.iter().filter(|note| matches!(note.what, Noted::Overlap { .. })).collect();
            assert!(!overlaps.is_empty(), "{noted:?}");
            let other = |note: &&&Note| note.what == Noted::Overlap { holder: 5 - note.attempt };
            assert_eq!(overlaps.iter().filter(other).count(), overlaps.len(), "{noted:?}");
            std::fs::remove_dir_all(locks).expect("the locks are gone");
        }
    }
}
