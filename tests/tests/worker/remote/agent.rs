//! Where a deploy key's private half is, and where it never is.

use std::path::{Path, PathBuf};
use std::slice;

use memchr::memmem;
use serde_json::json;
use tests::scripted::until;

use super::{KEY, Scene};

/// What lies below `dir` that isn't a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let below = |path: PathBuf| if path.is_dir() && !path.is_symlink() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.path())).collect()
}

/// The files below `dirs` that hold one of the key's traces.
fn leaks(scene: &Scene, dirs: &[&Path]) -> Vec<PathBuf> {
    let traces = scene.key.traces();
    let holds = |path: &PathBuf| {
        let content = std::fs::read(path).unwrap_or_default();
        traces.iter().any(|trace| memmem::find(&content, trace).is_some())
    };
    dirs.iter().flat_map(|dir| files(dir)).filter(holds).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_is_gone_before_the_first_step() {
    let scene = Scene::set().await;
    let agents = scene.staged.dir.path().join("data/worker/agents");
    let script = format!("ls -A '{}'; echo \"<$SSH_AUTH_SOCK>\"; echo \"<$GIT_SSH_COMMAND>\"", agents.display());
    assert_eq!(scene.printed(&script, &json!({})).await, "<>\n<>\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_use_the_key_through_an_agent_where_the_job_says_so_and_nothing_else() {
    let scene = Scene::set().await;
    let agents = scene.staged.dir.path().join("data/worker/agents");
    let note = scene.staged.note("go on");
    let script = format!(
        "ssh-add -L | cut -d ' ' -f 1,2; git ls-remote origin HEAD | cut -f 2; stat -c %a '{}'; \
         ssh-add -L > mine.pub; for refused in -D '-d mine.pub'; do ssh-add $refused > /dev/null 2>&1 || echo refused; done; \
         ssh-keygen -q -t ed25519 -N '' -f other; ssh-add other 2>/dev/null || echo refused; \
         ssh-add -T other.pub 2>/dev/null || echo refused; while [ ! -e '{}' ]; do sleep 0.02; done",
        agents.display(),
        note.display()
    );
    let job = scene.offer(&script, &json!({"deploy_key": {"name": KEY, "in_steps": true}})).await;
    let told = || scene.staged.script.text(job, shared::log::Stream::Stdout);
    until("the step to wait", || told().matches("refused").count() == 4).await;
    assert_eq!(files(&agents).len(), 1);
    // While the key is in use it is nowhere but in memory.
    let found = leaks(&scene, &[scene.staged.dir.path(), &std::env::temp_dir()]);
    assert!(found.is_empty(), "{found:?}");
    std::fs::write(&note, "").unwrap();
    let expected = format!("{}\nHEAD\n700\nrefused\nrefused\nrefused\nrefused\n", scene.key.public);
    assert_eq!(scene.output(job).await, expected);
    until("the socket's end", || files(&agents).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_holds_the_private_half_after_a_job_whatever_its_end() {
    let scene = Scene::set().await;
    // The search finds what is there.
    let planted = scene.staged.note("planted");
    for trace in scene.key.traces() {
        std::fs::write(&planted, [b"before", &*trace, b"after"].concat()).unwrap();
        assert_eq!(leaks(&scene, &[scene.staged.dir.path()]), slice::from_ref(&planted));
    }
    std::fs::remove_file(&planted).unwrap();
    for script in ["true", "false", "exit 75"] {
        let job = scene.offer(script, &json!({})).await;
        scene.staged.script.end(job).await;
    }
    let found = leaks(&scene, &[scene.staged.dir.path(), &std::env::temp_dir()]);
    assert!(found.is_empty(), "{found:?}");
}
