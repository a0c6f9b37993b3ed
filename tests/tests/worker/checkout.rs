//! Checkouts of repositories on the worker's own host.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use shared::job::{AttemptEnd, Failure, Progress};
use shared::log::Stream;
use tests::scripted::Staged;

use crate::HOST;

fn git(dir: &Path, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"];
    let output = Command::new("git").current_dir(dir).args(identity).args(arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with two commits on `main`, a tag on the first, and a branch that is also a tag's name.
fn repository(dir: &Path) -> PathBuf {
    let path = dir.join("some \"repository\"");
    std::fs::create_dir(&path).unwrap();
    git(&path, &["init", "--quiet"]);
    for text in ["one", "two"] {
        std::fs::write(path.join("file"), text).unwrap();
        git(&path, &["add", "file"]);
        git(&path, &["commit", "--quiet", "-m", text]);
        if text == "one" {
            git(&path, &["tag", "-a", "v1", "-m", "first"]);
        }
    }
    git(&path, &["branch", "work", "v1"]);
    git(&path, &["tag", "work", "main"]);
    // A hook of the repository takes no part in a checkout elsewhere.
    let hook = path.join(".git/hooks/post-checkout");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\necho hooked > hooked\n").unwrap();
    Command::new("chmod").arg("+x").arg(&hook).status().unwrap();
    path
}

fn job(url: &str, reference: Option<&str>) -> Value {
    let run = "cat file; test ! -e hooked; git rev-parse HEAD; git status --short; echo $WINDLASS_COMMIT $WINDLASS_REF";
    json!({"repository": {"url": url, "ref": reference.unwrap_or("HEAD")}, "steps": [{"run": run}]})
}

/// What stands in the work tree and the commit that is told.
async fn built(staged: &Staged, url: &str, reference: Option<&str>) -> (String, String) {
    let id = staged.script.offer(job(url, reference)).await;
    assert_eq!(staged.script.end(id).await.end, AttemptEnd::Succeeded, "{url} {reference:?}");
    let told = staged.script.seen().progress.iter().find_map(|(job, number, progress)| match progress {
        Progress::CheckedOut { commit } if *job == id && *number == 1 => Some(commit.to_string()),
        _ => None,
    });
    let told = told.expect("the commit is told first");
    let text = staged.script.text(id, Stream::Stdout);
    let (content, rest) = text.split_at(3);
    let reference = reference.unwrap_or("HEAD");
    assert_eq!(rest, format!("{told}\n{told} {reference}\n"));
    let said = format!("checked out {told} ({reference}) of {url}\n");
    assert_eq!(staged.script.text(id, Stream::Windlass), said);
    (content.to_owned(), told)
}

async fn refused(staged: &Staged, url: &str, reference: Option<&str>) -> String {
    let id = staged.script.offer(job(url, reference)).await;
    match staged.script.end(id).await.end {
        AttemptEnd::Failed { failure: Failure::CheckoutFailed { transient: false, message } } => message,
        end => panic!("{url} ended with {end:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_is_resolved_to_its_commit_and_that_stands_in_the_work_tree() {
    let staged = Staged::start(HOST, |_| {}).await;
    let path = repository(staged.dir.path());
    let url = path.to_str().unwrap();
    let (one, two) = (git(&path, &["rev-parse", "main~1"]), git(&path, &["rev-parse", "main"]));
    for (reference, content, commit) in [
        (None, "two", &two),
        (Some("main"), "two", &two),
        (Some("refs/heads/main"), "two", &two),
        (Some("v1"), "one", &one),
        (Some("work"), "one", &one),
        (Some(one.as_str()), "one", &one),
    ] {
        assert_eq!(built(&staged, url, reference).await, (content.to_owned(), commit.clone()), "{reference:?}");
    }
    assert_eq!(git(&path, &["status", "--short"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_repository_on_the_host_can_be_built() {
    let staged = Staged::start(HOST, |_| {}).await;
    let dir = staged.dir.path();
    let path = repository(dir);
    let two = git(&path, &["rev-parse", "main"]);
    git(dir, &["clone", "--quiet", "--bare", path.to_str().unwrap(), "bare.git"]);
    git(dir, &["clone", "--quiet", "--depth", "1", &format!("file://{}", path.display()), "shallow"]);
    git(&path, &["worktree", "add", "--quiet", "--detach", dir.join("linked").to_str().unwrap()]);
    std::os::unix::fs::symlink(&path, dir.join("link")).unwrap();
    let git_dir = path.join(".git");
    for url in ["bare.git", "shallow", "linked", "link", git_dir.to_str().unwrap()] {
        let url = dir.join(url);
        assert_eq!(built(&staged, url.to_str().unwrap(), None).await, ("two".to_owned(), two.clone()), "{url:?}");
    }
    let url = format!("file://{}", dir.join("bare.git").display());
    assert_eq!(built(&staged, &url, Some("main")).await.1, two);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_another_user_is_built_too() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only the superuser can give a repository away: not shown");
        return;
    }
    let staged = Staged::start(HOST, |_| {}).await;
    let path = repository(staged.dir.path());
    let chown = Command::new("chown").args(["-R", "1234:1234"]).arg(&path).status().unwrap();
    assert!(chown.success());
    assert_eq!(built(&staged, path.to_str().unwrap(), None).await.0, "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_checked_out_fails_with_one_clear_line() {
    let staged = Staged::start(HOST, |_| {}).await;
    let dir = staged.dir.path().to_str().unwrap().to_owned();
    let path = repository(staged.dir.path());
    let url = path.to_str().unwrap();
    std::fs::create_dir_all(path.join("sub/dir")).unwrap();
    std::fs::create_dir(staged.note("plain")).unwrap();
    std::fs::write(staged.note("text"), "").unwrap();
    git(staged.dir.path(), &["init", "--quiet", "empty"]);
    for (url, reference, message) in [
        (format!("{dir}/none"), None, format!("repository {dir}/none does not exist")),
        (format!("{dir}/text"), None, format!("repository {dir}/text is not a directory")),
        (format!("{dir}/plain"), None, format!("{dir}/plain is not a git repository")),
        (format!("{dir}/empty"), None, format!("ref HEAD not found in {dir}/empty")),
        (url.to_owned(), Some("none"), format!("ref none not found in {url}")),
        (
            format!("{url}/sub"),
            None,
            format!("{url}/sub lies inside of a git repository: name the repository's own directory"),
        ),
    ] {
        assert_eq!(refused(&staged, &url, reference).await, message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_workers_own_is_no_repository() {
    let staged = Staged::start(HOST, |_| {}).await;
    let dir = tempfile::tempdir().unwrap();
    let mirror = staged.dir.path().join("data/worker/mirrors/one");
    std::fs::create_dir_all(&mirror).unwrap();
    git(&mirror, &["init", "--quiet", "--bare"]);
    // By its name, by a link to it, and by a file that says where the repository is.
    let [link, apart] = ["link", "apart"].map(|name| dir.path().join(name));
    std::os::unix::fs::symlink(&mirror, &link).unwrap();
    std::fs::create_dir(&apart).unwrap();
    std::fs::write(apart.join(".git"), format!("gitdir: {}\n", mirror.display())).unwrap();
    for path in [&mirror, &link, &apart] {
        let id = staged.script.offer(job(path.to_str().unwrap(), None)).await;
        let message = format!("repository {} is the worker's own", path.display());
        let failure = Failure::CheckoutFailed { transient: false, message };
        assert_eq!(staged.script.end(id).await.end, AttemptEnd::Failed { failure });
    }
}
