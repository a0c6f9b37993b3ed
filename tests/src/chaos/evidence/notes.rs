//! What the steps have noted, read back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::chaos::history::{At, Id, Key, Note, Noted};

/// The notes in that directory, by the key of the job that was asked for. What a name begins a dot with is no notes.
///
/// # Panics
/// When a line is none that a step writes: a torn one is shown as it is.
pub fn read(directory: &Path) -> BTreeMap<Key, Vec<Note>> {
    let mut all = BTreeMap::new();
    for file in fs::read_dir(directory).expect("a directory of notes") {
        let file = file.expect("a file of notes");
        let name = file.file_name().into_string().expect("a key is a name");
        if name.starts_with('.') {
            continue;
        }
        let text = fs::read_to_string(file.path()).expect("notes");
        assert!(text.is_empty() || text.ends_with('\n'), "the notes of {name} end in the middle of a line: {text:?}");
        let noted = text.lines().map(|line| note(line).unwrap_or_else(|| panic!("no note, in {name}: {line:?}")));
        all.insert(Key(name.clone()), noted.collect());
    }
    all
}

fn note(line: &str) -> Option<Note> {
    let words: Vec<&str> = line.split(' ').collect();
    let (what, words) = match *words.as_slice() {
        [at, "begin", job, attempt, step, fence] => (Noted::Begin, [at, job, attempt, step, fence]),
        [at, "end", job, attempt, step, fence] => (Noted::End, [at, job, attempt, step, fence]),
        [at, "overlap", job, attempt, step, fence, holder] => {
            (Noted::Overlap { holder: holder.parse().ok()? }, [at, job, attempt, step, fence])
        }
        _ => return None,
    };
    let [at, job, attempt, step, fence] = words;
    let (at, job) = (At(at.parse().ok()?), Id(job.to_owned()));
    Some(Note { at, what, job, attempt: attempt.parse().ok()?, step: step.parse().ok()?, fence: fence.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::read;

    #[test]
    fn what_no_step_writes_is_refused() {
        for text in ["1 begin job 1 0 7", "1 begin job 1 0\n", "1 begin job 1 0 7 2\n", "1 overlap job 1 0 7\n", "x\n"]
        {
            let dir = tempfile::tempdir().expect("a directory");
            std::fs::write(dir.path().join("key"), text).expect("a file");
            assert!(catch_unwind(|| read(dir.path())).is_err(), "{text:?}");
        }
    }
}
