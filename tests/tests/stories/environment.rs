//! Whose environment a step of `windlass run` has, and where that is found otherwise: nowhere.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tests::process::Mark;
use tests::repo::Repo;
use tests::wait::eventually;
use tests::windlass::{Place, Running, files, files_with};

/// What a job has written down with `env -0`.
fn environment(note: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(note).expect("UTF-8");
    text.split_terminator('\0').filter_map(|entry| entry.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

#[test]
fn the_callers_environment_reaches_the_command_and_no_file() {
    let (place, repo, unique) = (Place::new(), Repo::new(), Mark::fresh().to_string());
    let (note, go, kept) = (place.path("environment"), place.path("go"), place.path("kept"));
    let script = format!(
        "env -0 > {}.new; mv {0}.new {0}; while [ ! -e {} ]; do sleep 0.05; done",
        note.display(),
        go.display()
    );
    let kept_name = kept.to_str().expect("UTF-8");
    let url = repo.url();
    let arguments =
        ["--data-dir", kept_name, "--repo", &url, "--ref", "main", "--env", "TOLD=over", "--", "sh", "-c", &script];
    let mut command = place.command(&arguments);
    let path = format!("{}:/{unique}/bin", std::env::var("PATH").expect("a PATH"));
    command.env("ARBITRARY", format!("a {unique} b")).env("PATH", &path).env("TOLD", "caller").env("CI", "no");
    command.env("WINDLASS_ATTEMPT", "17").env("HOME", place.path(&unique));
    let run = Running::start(command);
    eventually(Duration::from_mins(1), "the environment", || note.exists().then_some(()));
    assert!(files(&kept).len() > 3);
    assert_eq!(files_with(&kept, std::slice::from_ref(&unique)), [], "while it runs");
    std::fs::write(&go, "").expect("a file");
    let ended = run.finish();
    assert_eq!(ended.code, Some(0), "{}", ended.said());
    assert_eq!(files_with(&kept, std::slice::from_ref(&unique)), [], "afterwards");
    // What is searched does hold the rest of the job.
    assert!(!files_with(&kept, &["TOLD".to_owned()]).is_empty());

    let found = environment(&note);
    let home = place.path(&unique).display().to_string();
    let job = found["WINDLASS_JOB_ID"].clone();
    let expected = [
        ("ARBITRARY", format!("a {unique} b")),
        ("PATH", path),
        ("HOME", home),
        ("TOLD", "over".to_owned()),
        ("CI", "true".to_owned()),
        ("WINDLASS_ATTEMPT", "1".to_owned()),
        ("WINDLASS_STEP", "0".to_owned()),
        ("WINDLASS_COMMIT", repo.head()),
        ("WINDLASS_REF", "main".to_owned()),
        ("WINDLASS_REPOSITORY", url.clone()),
    ];
    for (name, value) in expected {
        assert_eq!(found[name], value, "{name}");
    }
    assert!(uuid::Uuid::parse_str(&job).is_ok() && found["WINDLASS_FENCE"].parse::<u64>().is_ok());
    assert!(Path::new(&found["TMPDIR"]).starts_with(&kept));
}
