//! `windlass key …` as its users have it, and the deploy key of `windlass run`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tests::dev::Dev;
use tests::host::Host;
use tests::windlass::{Finished, Place, windlass};

const HOST: &str = "git.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n";

/// `windlass key` with these arguments, for this server.
fn key(dev: &Dev, arguments: &[&str]) -> Output {
    key_with(dev, arguments, "")
}

/// The same with that standard input.
fn key_with(dev: &Dev, arguments: &[&str], input: &str) -> Output {
    let mut command = windlass();
    command.arg("key").args(arguments).env("WINDLASS_DATA_DIR", dev.data_dir());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that doesn't read it has ended by then.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    out(output)
}

/// A file in `dir`, readable by its owner alone.
fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    let mut options = fs::OpenOptions::new();
    options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    path.to_str().unwrap().to_owned()
}

/// A private key that ssh-keygen has made, and where it is.
fn made(dir: &Path, name: &str) -> (String, PathBuf) {
    let path = dir.join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status().unwrap();
    assert!(made.success());
    (fs::read_to_string(&path).unwrap(), path)
}

#[test]
fn a_key_that_is_made_prints_its_public_half_alone_and_says_where_it_belongs() {
    let (dev, dir) = (Dev::start(), TempDir::new().unwrap());
    let hosts = file(dir.path(), "hosts", HOST);
    let added = key(&dev, &["add", "app", "--generate", "--known-hosts", &hosts]);
    let public_key = done(&added);
    assert_eq!(public_key.lines().count(), 1, "{public_key}");
    assert!(public_key.starts_with("ssh-ed25519 ") && public_key.ends_with(" windlass:app\n"), "{public_key}");
    assert!(said(&added).contains("register the public key") && said(&added).contains("for reading alone"));
    assert!(said(&added).contains("until the host knows it, jobs that use it fail as deploy_key_denied"));
    assert!(
        Command::new("ssh-keygen")
            .args(["-l", "-f", &file(dir.path(), "app.pub", &public_key)])
            .status()
            .unwrap()
            .success()
    );

    let shown = done(&key(&dev, &["show", "app"]));
    assert!(shown.contains(public_key.trim()) && shown.contains(HOST.trim()), "{shown}");
    let listed = done(&key(&dev, &["list"]));
    assert!(listed.starts_with("NAME") && listed.contains("app") && listed.contains("SHA256:"), "{listed}");
    let json: Value = serde_json::from_str(&done(&key(&dev, &["list", "--output", "json"]))).unwrap();
    assert_eq!((&json["deploy_keys"][0]["name"], &json["deploy_keys"][0]["version"]), (&"app".into(), &1.into()));

    let rotated = key(&dev, &["rotate", "app", "--generate", "--output", "json"]);
    assert!(said(&rotated).contains("until the host knows it"), "{}", said(&rotated));
    let json: Value = serde_json::from_str(&done(&rotated)).unwrap();
    assert_eq!(json["version"], 2);
    assert_ne!(json["public_key"].as_str().unwrap(), public_key.trim());
    assert_eq!(done(&key(&dev, &["rekey"])), "0 moved on to the first master key\n");
    assert_eq!(done(&key(&dev, &["rekey", "--output", "json"])), "{\"resealed\":0,\"complete\":true}\n");
    assert_eq!(done(&key(&dev, &["remove", "app"])), "");
    assert_eq!(done(&key(&dev, &["list", "--output", "json"])), "{\"deploy_keys\":[],\"next_cursor\":null}\n");
}

#[test]
fn a_key_from_a_file_or_from_standard_input_is_registered_and_never_shown() {
    let (mut dev, dir) = (Dev::start(), TempDir::new().unwrap());
    let hosts = file(dir.path(), "hosts", HOST);
    let (private_key, path) = made(dir.path(), "key");
    let added = key(&dev, &["add", "app", "--file", path.to_str().unwrap(), "--known-hosts", &hosts]);
    assert!(done(&added).starts_with("app, version 1: ssh-ed25519 SHA256:"), "{}", out(&added));
    let (other, _) = made(dir.path(), "other");
    let from_input = key_with(&dev, &["rotate", "app", "--file", "-"], &other);
    assert!(done(&from_input).starts_with("app, version 2: "), "{}", out(&from_input));
    let hosts_from_input = key_with(&dev, &["rotate", "app", "--known-hosts", "-"], &format!("# new\n{HOST}"));
    assert!(done(&hosts_from_input).starts_with("app, version 3: "));
    let shown = key(&dev, &["show", "app", "--output", "json"]);
    assert!(dev.stop().success());
    let everything =
        [added, from_input, hosts_from_input, shown].map(|output| out(&output) + &said(&output)).concat() + &dev.log();
    for line in private_key.lines().chain(other.lines()).filter(|line| !line.starts_with("-----")) {
        assert!(!everything.contains(line));
    }
}

#[test]
fn a_mistake_about_a_key_is_told_with_its_remedy() {
    let (dev, dir) = (Dev::start(), TempDir::new().unwrap());
    let hosts = file(dir.path(), "hosts", HOST);
    let bad_hosts = file(dir.path(), "bad", "git.example.org\n");
    let (_, path) = made(dir.path(), "key");
    let public = format!("{}.pub", path.display());
    done(&key(&dev, &["add", "there", "--generate", "--known-hosts", &hosts]));
    for (arguments, code, expected) in [
        (&["add", "app", "--known-hosts", &hosts][..], 2, "--generate"),
        (&["add", "app", "--generate"], 2, "--known-hosts"),
        (&["add", "app", "--generate", "--file", "x", "--known-hosts", &hosts], 2, "--file"),
        (&["add", "app", "--file", "-", "--known-hosts", "-"], 2, "standard input"),
        (&["rotate", "there"], 2, "nothing would change"),
        (&["add", "app", "--file", "/no/such", "--known-hosts", &hosts], 1, "--file: /no/such:"),
        (&["add", "app", "--file", &public, "--known-hosts", &hosts], 1, "private_key: is a public key"),
        (&["add", "app", "--generate", "--known-hosts", &bad_hosts], 1, "known_hosts: line 1"),
        (&["add", "-x", "--generate", "--known-hosts", &hosts], 2, "-x"),
        (&["add", "a b", "--generate", "--known-hosts", &hosts], 1, "name: must be made of"),
        (&["add", "there", "--generate", "--known-hosts", &hosts], 1, "use `windlass key rotate`"),
        (&["rotate", "app", "--generate"], 1, "use `windlass key add`"),
        (&["show", "app"], 1, "there is no such deploy key"),
        (&["show", ""], 1, "name: must not be empty"),
        (&["remove", ""], 1, "name: must not be empty"),
        (&["show", "a/b"], 1, "name: must be made of"),
        (&["remove", "app"], 1, "there is no such deploy key"),
    ] {
        let refused = key(&dev, arguments);
        assert_eq!((refused.status.code(), out(&refused)), (Some(code), String::new()), "{arguments:?}");
        assert!(said(&refused).contains(expected), "{arguments:?}: {}", said(&refused));
    }
}

#[test]
fn a_deploy_key_that_run_cannot_use_ends_it_at_once_with_the_remedy() {
    let (place, dir) = (Place::new(), TempDir::new().unwrap());
    let kept = dir.path().join("kept");
    let (hosts, bad) = (file(dir.path(), "hosts", HOST), file(dir.path(), "bad", "hunter2"));
    let kept = kept.to_str().unwrap();
    for (arguments, expected) in [
        (&["--deploy-key", "app"][..], "needs --data-dir"),
        (&["--deploy-key", "./app"], "there is no file ./app"),
        (&["--deploy-key", &bad], "--known-hosts"),
        (&["--deploy-key", &bad, "--known-hosts", &hosts], "--deploy-key: is not a private key in OpenSSH's format"),
        (&["--deploy-key", "app", "--data-dir", kept], "no deploy key app is registered"),
        (&["--deploy-key", "app", "--data-dir", kept], &format!("windlass key add app --data-dir {kept} ")),
        (&["--deploy-key", "a b", "--data-dir", kept], "--deploy-key: a b: must be made of"),
        (&["--deploy-key", ""], "--deploy-key: must not be empty"),
        (&["--deploy-key", "-"], "windlass key add NAME --file -"),
        (&["--deploy-key", "app", "--data-dir", kept, "--known-hosts", &hosts], "has its own host keys"),
    ] {
        let repo = ["--repo", "git@127.0.0.1:app.git"];
        let ran = place.run(&[&repo[..], arguments, &["--", "true"]].concat());
        assert_eq!((ran.code, ran.out()), (Some(125), String::new()), "{arguments:?}: {}", ran.said());
        assert!(ran.said().contains(expected), "{arguments:?}: {}", ran.said());
        assert!(!ran.said().contains("hunter2"));
    }
}

/// A remote repository with a greeting, and where `windlass run` is at home.
struct Remote {
    place: Place,
    host: Host,
    dir: TempDir,
}

impl Remote {
    fn new() -> Self {
        let host = Host::new();
        host.repo.commit(&[("greeting", "hello")]);
        Self { place: Place::new(), host, dir: TempDir::new().unwrap() }
    }

    /// A directory that is kept.
    fn kept(&self) -> String {
        self.dir.path().join("kept").to_str().unwrap().to_owned()
    }

    /// `windlass run` of `cat greeting` with a deploy key and these arguments.
    fn run(&self, arguments: &[&str]) -> Finished {
        let url = self.host.url();
        self.place.run(&[&["--repo", &url], arguments, &["--", "cat", "greeting"]].concat())
    }
}

#[test]
fn run_builds_a_remote_repository_with_a_key_from_a_file_and_keeps_nothing_of_it() {
    let remote = Remote::new();
    let private_key = file(remote.dir.path(), "key", &remote.host.key.private);
    let hosts = file(remote.dir.path(), "hosts", &remote.host.sshd.known_hosts());
    let kept = remote.kept();
    let named = remote.run(&["--deploy-key", "app", "--data-dir", &kept]);
    assert_eq!(named.code, Some(125), "{}", named.said());
    assert!(named.said().contains("no deploy key app is registered"), "{}", named.said());
    for directory in [&[][..], &["--data-dir", &kept], &["--data-dir", &kept]] {
        let ran = remote.run(&[&["--deploy-key", &private_key, "--known-hosts", &hosts], directory].concat());
        assert_eq!((ran.code, ran.out().as_str()), (Some(0), "hello"), "{}", ran.said());
    }
    assert!(remote.place.left().is_empty());

    // In the directory that is kept, a key is kept under its name alone.
    let mut dev = windlass();
    dev.arg("dev").env("WINDLASS_DATA_DIR", &kept).env("WINDLASS_LISTEN", "127.0.0.1:0");
    let mut dev = tests::server::Server::start("dev", dev);
    dev.address();
    let of_kept = |arguments: &[&str]| {
        let done = windlass().arg("key").args(arguments).env("WINDLASS_DATA_DIR", &kept).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        out(&done)
    };
    assert_eq!(of_kept(&["list", "--output", "json"]), "{\"deploy_keys\":[],\"next_cursor\":null}\n");
    of_kept(&["add", "app", "--file", &private_key, "--known-hosts", &hosts]);
    assert!(dev.stop().success());
    let named = remote.run(&["--deploy-key", "app", "--data-dir", &kept]);
    assert_eq!((named.code, named.out().as_str()), (Some(0), "hello"), "{}", named.said());
}

#[test]
fn a_key_that_the_host_refuses_ends_run_with_125_and_says_so() {
    let remote = Remote::new();
    let (_, other) = made(remote.dir.path(), "other");
    let hosts = file(remote.dir.path(), "hosts", &remote.host.sshd.known_hosts());
    let ran = remote.run(&["--deploy-key", other.to_str().unwrap(), "--known-hosts", &hosts]);
    assert_eq!((ran.code, ran.out()), (Some(125), String::new()), "{}", ran.said());
    assert!(ran.said().contains("deploy_key_denied"), "{}", ran.said());
    assert!(ran.said().contains(&format!("refused deploy key {}", other.display())), "{}", ran.said());
    assert!(!ran.said().contains("windlass.run-") && !ran.said().contains("can be read by others"), "{}", ran.said());
    fs::set_permissions(&other, PermissionsExt::from_mode(0o640)).unwrap();
    let open = remote.run(&["--deploy-key", other.to_str().unwrap(), "--known-hosts", &hosts]);
    assert!(open.said().contains("can be read by others (mode 640)"), "{}", open.said());
}
