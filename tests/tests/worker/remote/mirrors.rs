//! What a worker keeps of the repositories that it builds, whatever happens to it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use shared::job::{AttemptEnd, Failure};
use shared::time::Period;
use tests::process;
use tests::scripted::until;
use tests::sshd::KeyPair;

use super::Scene;

/// Adds what no pack makes small.
fn big(scene: &Scene) -> String {
    let line = |_| format!("{:032x}\n", u128::from_ne_bytes(shared::clock::random()));
    scene.repo.commit(&[("big", &(0..40_000).map(line).collect::<String>())])
}

fn dir(scene: &Scene) -> PathBuf {
    scene.staged.dir.path().join("data/worker/mirrors")
}

/// The mirrors of the scene's worker.
fn mirrors(scene: &Scene) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir(scene)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The only mirror.
fn mirror(scene: &Scene) -> PathBuf {
    match &mirrors(scene)[..] {
        [one] => one.clone(),
        all => panic!("{all:?}"),
    }
}

/// The processes that run in the scene's mirrors.
fn fetching(scene: &Scene) -> Vec<i32> {
    let dir = dir(scene);
    let runs_there = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&dir));
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(runs_there).collect()
}

fn packs(mirror: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(mirror.join("objects/pack")).into_iter().flatten().flatten();
    let mut packs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    packs.retain(|path| path.extension().is_some_and(|ending| ending == "pack"));
    packs
}

/// Waits until a fetch is held up in the middle.
async fn until_held_up(scene: &Scene) {
    let begun = |mirror: &PathBuf| {
        let entries = fs::read_dir(mirror.join("objects/pack")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("tmp_pack")).count() > 0
    };
    until("a fetch in the middle", || mirrors(scene).iter().any(begun)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_in_the_mirror_is_not_fetched_again_and_a_new_one_is() {
    let scene = Scene::set().await;
    // Each job asks, and fetches where it has to.
    for asked_and_fetched in [2, 3] {
        assert_eq!(scene.printed("cat README", &json!({})).await, "what a job builds\n");
        assert_eq!(scene.sshd.said("Accepted publickey"), asked_and_fetched);
    }
    scene.repo.commit(&[("README", "two\n")]);
    assert_eq!(scene.printed("cat README", &json!({})).await, "two\n");
    assert_eq!(scene.sshd.said("Accepted publickey"), 5);
    assert_eq!(packs(&mirror(&scene)).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_served_from_the_mirror_whose_key_cannot_read_the_repository() {
    let scene = Scene::set().await;
    let head = scene.repo.head();
    scene.printed("true", &json!({})).await;
    scene.staged.script.seen().commit = Some(head.clone().try_into().unwrap());

    let other = KeyPair::new();
    scene.sshd.allow(&other, scene.staged.dir.path());
    scene.register(&other);
    let job = scene.offer("true", &json!({"ref": head})).await;
    let message = scene.refused(job).await;
    assert!(message.contains("not found, or not for us"), "{message}");

    scene.sshd.allow_nobody();
    let job = scene.offer("true", &json!({"ref": head})).await;
    let failure = scene.failure(job).await;
    assert!(matches!(failure, Failure::DeployKeyDenied { .. }), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_and_settings_that_were_planted_in_a_mirror_do_not_run() {
    let scene = Scene::set().await;
    scene.printed("true", &json!({})).await;
    let (mirror, ran) = (mirror(&scene), scene.staged.note("ran"));
    let program = scene.staged.note("program");
    fs::write(&program, format!("#!/bin/sh\necho \"$0 $@\" >> '{}'\n", ran.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(mirror.join("hooks")).unwrap();
    for hook in ["post-checkout", "reference-transaction", "pre-auto-gc", "post-index-change"] {
        fs::copy(&program, mirror.join("hooks").join(hook)).unwrap();
    }
    let (program, hooks) = (program.display(), mirror.join("hooks"));
    let config = format!(
        "\tsshCommand = {program}\n\tfsmonitor = {program}\n\thooksPath = {}\n\tgitProxy = {program}\n[url \"ssh://nowhere.invalid/\"]\n\
         \tinsteadOf = ssh://\n[uploadpack]\n\tpackObjectsHook = {program}\n[core]\n\taskPass = {program}\n",
        hooks.display()
    );
    let planted = fs::read_to_string(mirror.join("config")).unwrap().replace("[gc]", &format!("{config}[gc]"));
    fs::write(mirror.join("config"), planted).unwrap();
    scene.repo.commit(&[("README", "two\n")]);
    assert_eq!(scene.printed("cat README", &json!({})).await, "two\n");
    assert_eq!(fs::read_to_string(&ran).unwrap_or_default(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_in_which_git_was_killed_serves_the_same_job_and_the_next() {
    let scene = Scene::set().await;
    scene.printed("true", &json!({})).await;
    big(&scene);
    scene.sshd.hold_up();
    let job = scene.offer("git fsck", &json!({})).await;
    until_held_up(&scene).await;
    let killed = fetching(&scene);
    assert!(killed.len() >= 2, "{killed:?}");
    for pid in killed {
        process::send(pid, Signal::SIGKILL);
    }
    scene.sshd.let_go();
    scene.output(job).await;
    // Which of them is killed first decides what is heard of it.
    let said = scene.said(job);
    assert!(said.contains("try 1 of 4 failed: ") && said.contains("; again in "), "{said}");
    scene.printed("git fsck", &json!({})).await;
    let left = fs::read_dir(mirror(&scene).join("objects/pack")).unwrap().flatten();
    let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().starts_with("tmp_")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_with_stale_locks_or_half_a_pack_is_mended_or_made_anew() {
    let scene = Scene::set().await;
    big(&scene);
    scene.printed("true", &json!({})).await;
    for lock in ["shallow.lock", "config.lock", "packed-refs.lock", "HEAD.lock"] {
        fs::write(mirror(&scene).join(lock), "").unwrap();
    }
    scene.repo.commit(&[("README", "two\n")]);
    assert_eq!(scene.printed("cat README", &json!({})).await, "two\n");

    for pack in packs(&mirror(&scene)) {
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
        let length = fs::metadata(&pack).unwrap().len();
        fs::File::options().write(true).open(&pack).unwrap().set_len(length / 2).unwrap();
    }
    let job = scene.offer("git fsck; cat README", &json!({})).await;
    assert_eq!(scene.output(job).await, "two\n");
    assert!(scene.said(job).contains("is made anew: "), "{}", scene.said(job));
    // It was made anew, and serves the next as it is.
    let job = scene.offer("cat README", &json!({})).await;
    assert_eq!(scene.output(job).await, "two\n");
    assert!(!scene.said(job).contains("is made anew"), "{}", scene.said(job));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_was_turned_in_a_mirror_reaches_no_work_tree() {
    let scene = Scene::set().await;
    big(&scene);
    scene.printed("true", &json!({})).await;
    for pack in packs(&mirror(&scene)) {
        let mut content = fs::read(&pack).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&pack, content).unwrap();
    }
    let job = scene.offer("git fsck; git status --short; cat README", &json!({})).await;
    assert_eq!(scene.output(job).await, "what a job builds\n");
    assert!(scene.said(job).contains("is made anew: "), "{}", scene.said(job));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_at_once_share_a_mirror_one_after_the_other() {
    let scene = Scene::set().await;
    let head = big(&scene);
    scene.sshd.hold_up();
    let first = scene.offer("git fsck; git rev-parse HEAD", &json!({})).await;
    until_held_up(&scene).await;
    let second = scene.offer("git fsck; git rev-parse HEAD", &json!({})).await;
    until("the second's question", || scene.sshd.said("Accepted publickey") >= 3).await;
    scene.sshd.let_go();
    for job in [first, second] {
        assert_eq!(scene.output(job).await.trim(), head);
    }
    // Two questions and one fetch: the second found what the first had fetched.
    assert_eq!(scene.sshd.said("Accepted publickey"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_a_mirror_is_stopped_at_once() {
    let scene = Scene::set().await;
    big(&scene);
    scene.sshd.hold_up();
    let first = scene.offer("true", &json!({})).await;
    until_held_up(&scene).await;
    let before = scene.sshd.said("disconnected by user");
    let second = scene.offer("true", &json!({})).await;
    until("the answer to the second", || scene.sshd.said("disconnected by user") > before).await;
    scene.staged.script.stop(second, Period::from_secs(60)).await;
    assert_eq!(scene.staged.script.end(second).await.end, AttemptEnd::Stopped);
    // So is the one that holds it, with its git; the next one finds the mirror free.
    scene.staged.script.stop(first, Period::from_secs(60)).await;
    assert_eq!(scene.staged.script.end(first).await.end, AttemptEnd::Stopped);
    assert!(fetching(&scene).is_empty(), "its git outlived it");
    scene.sshd.let_go();
    scene.printed("git fsck", &json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stalls_is_given_up_and_asked_again() {
    let scene = Scene::configured(|config| config.git_within = Some(Duration::from_secs(3))).await;
    big(&scene);
    scene.sshd.hold_up();
    let job = scene.offer("cat README", &json!({})).await;
    scene.until_said(job, "try 1 of 4 failed: git wasn't done within 3s, and was stopped; again in ").await;
    assert!(fetching(&scene).is_empty(), "its git goes on");
    scene.sshd.let_go();
    assert_eq!(scene.output(job).await, "what a job builds\n");
}
