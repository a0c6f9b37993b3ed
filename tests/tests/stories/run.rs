//! `windlass run`: what it runs, what it ends with, what it says and what it leaves.

use std::os::unix::fs::PermissionsExt;

use tests::process::Mark;
use tests::repo::Repo;
use tests::windlass::Place;

#[test]
fn a_command_ends_run_with_its_own_code_as_a_shell_says_it() {
    let place = Place::new();
    let plain = place.path("not-executable");
    std::fs::write(&plain, "no program\n").expect("a file");
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).expect("its mode");
    let plain = plain.to_str().expect("UTF-8");
    let cases: [(&[&str], i32); 7] = [
        (&["true"], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "exit 255"], 255),
        (&["windlass-there-is-no-such-command"], 127),
        (&[plain], 126),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["sh", "-c", "kill -TERM $$"], 143),
    ];
    for (command, code) in cases {
        let ended = place.run(&[&["--"], command].concat());
        assert_eq!(ended.code, Some(code), "{command:?}: {}", ended.said());
        assert_eq!(place.left(), Vec::<std::path::PathBuf>::new(), "{command:?}");
    }
}

#[test]
fn the_commit_at_head_is_built_and_what_is_not_committed_stays_out_and_is_said() {
    let (place, repo) = (Place::new(), Repo::new());
    let head = repo.commit(&[("src/main.txt", "committed\n")]);
    let look = "git rev-parse HEAD && cat src/main.txt && ls && exit 7";
    let url = repo.url();
    let build = || place.run(&["--repo", &url, "--", "sh", "-c", look]);
    let expected = format!("{head}\ncommitted\nREADME\nsrc\n");

    let clean = build();
    assert_eq!((clean.code, clean.out()), (Some(7), expected.clone()));
    assert!(!clean.said().contains("uncommitted"), "{}", clean.said());

    repo.write("src/main.txt", "changed\n");
    repo.write("new.txt", "new\n");
    let changed = build();
    assert_eq!((changed.code, changed.out()), (Some(7), expected));
    let uncommitted = format!("2 uncommitted changes in {url} stay out: the commit at HEAD is built");
    assert!(changed.said().contains(&uncommitted), "{}", changed.said());
}

#[test]
fn a_branch_a_tag_and_a_commit_can_be_named() {
    let (place, repo) = (Place::new(), Repo::new());
    let first = repo.head();
    repo.git(&["tag", "v1"]);
    repo.git(&["switch", "--quiet", "--create", "side"]);
    let side = repo.commit(&[("side.txt", "")]);
    repo.git(&["switch", "--quiet", "main"]);
    for (reference, commit) in [("side", &side), ("v1", &first), (first.as_str(), &first)] {
        let built = place.run(&["--repo", &repo.url(), "--ref", reference, "--", "git", "rev-parse", "HEAD"]);
        assert_eq!((built.code, built.out()), (Some(0), format!("{commit}\n")), "{reference}: {}", built.said());
    }
}

#[test]
fn a_repository_that_cannot_be_built_ends_with_125_and_one_clear_line_without_a_retry() {
    let (place, repo, unborn) = (Place::new(), Repo::new(), Repo::empty());
    let (missing, plain) = (place.path("missing"), place.path("plain"));
    std::fs::create_dir(&plain).expect("a directory");
    let (missing, plain) = (missing.to_str().expect("UTF-8"), plain.to_str().expect("UTF-8"));
    let cases: [(&[&str], String); 5] = [
        (&["--repo", missing], format!("there is no directory {missing}")),
        (&["--repo", "/dev/null"], "/dev/null is not a directory".to_owned()),
        (&["--repo", plain], format!("{plain} is not a git repository")),
        (&["--repo", &repo.url(), "--ref", "nowhere"], format!("ref nowhere not found in {}", repo.url())),
        (&["--repo", &unborn.url()], format!("ref HEAD not found in {}", unborn.url())),
    ];
    for (arguments, line) in cases {
        let ended = place.run(&[arguments, &["--", "echo", "started"]].concat());
        let said = ended.said();
        assert_eq!((ended.code, ended.out()), (Some(125), String::new()), "{arguments:?}: {said}");
        assert_eq!(said.matches(&line).count(), 1, "{arguments:?}: {said}");
        assert!(!said.contains("attempt 1 failed") && !said.contains("the next in"), "{said}");
        assert!(place.left().is_empty());
    }
}

#[test]
fn what_cannot_be_used_ends_with_125_and_one_line() {
    let place = Place::new();
    let cases: [&[&str]; 8] = [
        &[],
        &["--no-such-flag", "--", "true"],
        &["--timeout", "soon", "--", "true"],
        &["--env", "1X=no name", "--", "true"],
        &["--deploy-key", "/dev/null", "--", "true"],
        &["--repo", "git@git.example.org:app.git", "--", "true"],
        &["--repo", "git@git.example.org:app.git", "--deploy-key", "app", "--", "true"],
        &["--repo", "https://me:hunter2@example.org/app.git", "--", "true"],
    ];
    for arguments in cases {
        let ended = place.run(arguments);
        let said = ended.said();
        assert_eq!((ended.code, ended.out()), (Some(125), String::new()), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    }
}

#[test]
fn a_timeout_ends_with_124_and_leaves_nothing() {
    let (place, mark) = (Place::new(), Mark::fresh());
    let (name, value) = mark.entry();
    let entry = format!("{name}={value}");
    let arguments = ["--timeout", "700ms", "--grace", "0s", "--env", &entry];
    let ended = place.run(&[&arguments[..], &["--", "sh", "-c", "sleep 1000 & sleep 1000"]].concat());
    assert_eq!(ended.code, Some(124), "{}", ended.said());
    assert!(mark.is_gone());
    assert!(ended.said().contains("its timeout passed"), "{}", ended.said());
    assert!(place.left().is_empty());
}

#[test]
fn run_ends_with_its_timeline() {
    let (place, repo) = (Place::new(), Repo::new());
    let ended = place.run(&["--repo", &repo.url(), "--", "true"]);
    let said = ended.said();
    let last = said.lines().last().and_then(|line| line.strip_prefix("windlass: ")).expect("a last line of ours");
    let parts: Vec<(&str, &str)> = last.split(", ").filter_map(|part| part.split_once(' ')).collect();
    assert_eq!(
        parts.iter().map(|(what, _)| *what).collect::<Vec<_>>(),
        ["waited", "prepared", "ran", "total"],
        "{said}"
    );
    assert!(parts.iter().all(|(_, time)| time.ends_with('s')), "{said}");
}

#[test]
fn a_directory_that_is_named_is_kept_and_used_again() {
    let place = Place::new();
    let kept = place.path("kept");
    let kept = kept.to_str().expect("UTF-8");
    for code in [3, 4] {
        let ended = place.run(&["--data-dir", kept, "--", "sh", "-c", &format!("exit {code}")]);
        assert_eq!(ended.code, Some(code), "{}", ended.said());
    }
    assert!(std::path::Path::new(kept).join("windlass.db").exists());
    assert!(place.left().is_empty());
}
