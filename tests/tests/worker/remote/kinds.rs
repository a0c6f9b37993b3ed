//! What can be checked out, and how much of it.

use serde_json::json;
use shared::job::{AttemptEnd, KeyAnswer};
use shared::log::Stream;
use tests::repo::Repo;
use tests::sshd::{KeyPair, Sshd};

use super::{KEY, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_behind_ssh_is_checked_out_with_the_jobs_key_of_any_kind() {
    let kinds: [&[&str]; 4] = [
        &["-t", "ed25519"],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
    ];
    for kind in kinds {
        let scene = Scene::with(Sshd::start(), KeyPair::made(kind)).await;
        let script = "cat README; git rev-parse HEAD; echo $WINDLASS_COMMIT; git config remote.origin.url; \
                      git status --short; test ! -e .git/objects/info/alternates; git fsck --no-dangling 2>&1; \
                      find .git/objects -type f -links +1";
        let job = scene.offer(script, &json!({"ref": "main"})).await;
        let (head, url) = (scene.repo.head(), scene.url());
        assert_eq!(scene.output(job).await, format!("what a job builds\n{head}\n{head}\n{url}\n"), "{kind:?}");
        assert_eq!(scene.told(job).unwrap().as_str(), head);
        assert_eq!(scene.said(job), format!("checked out {head} (main) of {url}\n"));
        assert_eq!(scene.staged.script.key_tries(job), [(1, KeyAnswer::Sealed, None, None)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_is_a_branch_before_a_tag_or_what_it_says_in_full() {
    let scene = Scene::set().await;
    let one = scene.repo.head();
    scene.repo.git(&["tag", "--annotate", "v1", "--message", "first"]);
    let two = scene.repo.commit(&[("README", "two\n")]);
    scene.repo.git(&["branch", "work", &one]);
    scene.repo.git(&["tag", "work", &two]);
    scene.repo.git(&["update-ref", "refs/changes/1", &one]);
    for (reference, commit) in [
        (json!({}), &two),
        (json!({"ref": "HEAD"}), &two),
        (json!({"ref": "v1"}), &one),
        (json!({"ref": "work"}), &one),
        (json!({"ref": "refs/tags/work"}), &two),
        (json!({"ref": "refs/changes/1"}), &one),
        (json!({"ref": one}), &one),
    ] {
        assert_eq!(scene.printed("git rev-parse HEAD", &reference).await.trim(), commit, "{reference}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_shallow_unless_the_job_wants_all_of_it() {
    let scene = Scene::set().await;
    scene.repo.git(&["branch", "old"]);
    scene.repo.git(&["tag", "v1"]);
    scene.repo.commit(&[("README", "two\n")]);
    let script =
        "git rev-list --count HEAD; git for-each-ref --format='%(refname)'; git rev-parse --is-shallow-repository";
    assert_eq!(scene.printed(script, &json!({})).await, "1\ntrue\n");
    let all = "2\nrefs/remotes/origin/main\nrefs/remotes/origin/old\nrefs/tags/v1\nfalse\n";
    assert_eq!(scene.printed(script, &json!({"history": "full"})).await, all);

    // What comes and goes on the server comes and goes in the next job's tree as well.
    scene.repo.git(&["branch", "--delete", "old"]);
    scene.repo.git(&["branch", "old/new"]);
    scene.repo.commit(&[("README", "three\n")]);
    let all = "3\nrefs/remotes/origin/main\nrefs/remotes/origin/old/new\nrefs/tags/v1\nfalse\n";
    assert_eq!(scene.printed(script, &json!({"history": "full"})).await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_built_wherever_the_branch_is_by_now() {
    for sshd in [Sshd::start(), Sshd::old()] {
        let scene = Scene::with(sshd, KeyPair::new()).await;
        let recorded = scene.repo.head();
        scene.repo.commit(&[("README", "moved\n")]);
        scene.staged.script.seen().commit = Some(recorded.clone().try_into().unwrap());
        let job = scene.offer("cat README", &json!({"ref": "main"})).await;
        assert_eq!(scene.output(job).await, "what a job builds\n");
        assert_eq!(scene.told(job).unwrap().as_str(), recorded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_gives_nothing_by_id_is_asked_for_the_ref() {
    let scene = Scene::with(Sshd::old(), KeyPair::new()).await;
    scene.repo.git(&["tag", "--annotate", "v1", "--message", "first"]);
    let tagged = scene.repo.head();
    scene.repo.commit(&[("README", "two\n")]);
    let script = "git rev-parse HEAD; git rev-parse --is-shallow-repository";
    assert_eq!(scene.printed(script, &json!({"ref": "v1"})).await, format!("{tagged}\ntrue\n"));
    assert_eq!(scene.printed(script, &json!({})).await, format!("{}\ntrue\n", scene.repo.head()));
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_come_along_where_the_job_wants_them() {
    let scene = Scene::set().await;
    // Both lie below one directory, which the key opens; one names the other by where it is from there.
    let part = scene.repo.path().join("part");
    let inner = Repo::new();
    inner.commit(&[("inner", "of the submodule\n")]);
    scene.repo.git(&["clone", "--quiet", "--bare", &inner.url(), part.to_str().unwrap()]);
    scene.repo.write(".git/info/exclude", "/part\n");
    let allow = "protocol.file.allow=always";
    scene.repo.git(&["-c", allow, "submodule", "--quiet", "add", "--name", "part", &inner.url(), "below"]);
    scene.repo.git(&["config", "--file", ".gitmodules", "submodule.part.url", "../part"]);
    scene.repo.commit(&[]);
    let script = "ls below; test ! -e below/inner || git -C below rev-list --count HEAD";
    assert_eq!(scene.printed(script, &json!({"submodules": true})).await, "README\ninner\n1\n");
    assert_eq!(scene.printed(script, &json!({"submodules": true, "history": "full"})).await, "README\ninner\n2\n");
    assert_eq!(scene.printed(script, &json!({})).await, "");

    // A repository on the host may have one behind ssh, and one beside itself.
    let url = scene.sshd.url(&part);
    let local = Repo::new();
    local.git(&["-c", allow, "submodule", "--quiet", "add", "--name", "far", part.to_str().unwrap(), "far"]);
    local.git(&["-c", allow, "submodule", "--quiet", "add", "--name", "near", part.to_str().unwrap(), "near"]);
    local.git(&["config", "--file", ".gitmodules", "submodule.far.url", &url]);
    let beside = format!("../{}/part", scene.repo.path().file_name().unwrap().to_str().unwrap());
    local.git(&["config", "--file", ".gitmodules", "submodule.near.url", &beside]);
    local.commit(&[]);
    let repository = json!({"url": local.url(), "deploy_key": KEY, "submodules": true});
    let job =
        json!({"repository": repository, "steps": [{"run": "cat far/inner near/inner; find . -type f -links +1"}]});
    let job = scene.staged.script.offer(job).await;
    assert_eq!(scene.output(job).await, "of the submodule\nof the submodule\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submodule_that_is_pinned_behind_a_tip_is_checked_out_where_nothing_is_given_by_id() {
    let scene = Scene::with(Sshd::old(), KeyPair::new()).await;
    let part = scene.repo.path().join("part");
    let inner = Repo::new();
    inner.commit(&[("inner", "as pinned\n")]);
    scene.repo.write(".git/info/exclude", "/part\n");
    let allow = "protocol.file.allow=always";
    scene.repo.git(&["-c", allow, "submodule", "--quiet", "add", "--name", "part", &inner.url(), "below"]);
    scene.repo.git(&["config", "--file", ".gitmodules", "submodule.part.url", "../part"]);
    scene.repo.commit(&[]);
    inner.commit(&[("inner", "moved\n")]);
    scene.repo.git(&["clone", "--quiet", "--bare", &inner.url(), part.to_str().unwrap()]);
    let script = "cat below/inner; git rev-parse --is-shallow-repository";
    assert_eq!(scene.printed(script, &json!({"submodules": true})).await, "as pinned\ntrue\n");

    // One that isn't there at all is named.
    std::fs::remove_dir_all(&part).unwrap();
    let job = scene.offer("true", &json!({"submodules": true})).await;
    let message = scene.refused(job).await;
    assert!(message.contains("into submodule path '") && message.contains("below' failed: "), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submodule_without_a_key_or_on_the_host_is_not_fetched_for_a_remote_repository() {
    let scene = Scene::set().await;
    let other = Repo::new();
    let allow = "protocol.file.allow=always";
    scene.repo.git(&["-c", allow, "submodule", "--quiet", "add", "--name", "part", &other.url(), "below"]);
    scene.repo.commit(&[]);
    let job = scene.offer("true", &json!({"submodules": true})).await;
    let message = scene.refused(job).await;
    assert!(message.contains("a submodule of") && message.contains("transport 'file' not allowed"), "{message}");
    assert_eq!(scene.staged.script.text(job, Stream::Stdout), "");
    assert!(matches!(scene.staged.script.end(job).await.end, AttemptEnd::Failed { .. }));
}
