//! The agent as OpenSSH's own client and a stranger see it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::getpid;
use shared::secret::Secret;
use ssh_agent_lib::proto::signature::RSA_SHA2_512;
use ssh_key::PrivateKey;

use super::*;

/// A key as `ssh-keygen` makes it, and its file.
fn key(dir: &Path, arguments: &[&str]) -> (Secret, PathBuf) {
    let file = dir.join("key");
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-C", "", "-f"]).arg(&file).args(arguments);
    assert!(keygen.status().unwrap().success());
    (Secret::new(std::fs::read_to_string(&file).unwrap()), file)
}

/// What the agent answers to a request of that body.
fn asked(agent: &SshAgent, request: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(agent.socket()).unwrap();
    stream.write_all(&u32::try_from(request.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(request).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

fn sign(public: &PrivateKey, data: &[u8], flags: u32) -> Vec<u8> {
    let credential = PublicCredential::Key(public.public_key().key_data().clone());
    let mut request = Vec::new();
    Request::SignRequest(SignRequest { credential, data: data.to_vec(), flags }).encode(&mut request).unwrap();
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_signs_with_every_kind_of_key_and_finds_the_signature_right() {
    for kind in ["ed25519", "rsa", "ecdsa-256", "ecdsa-384"] {
        let dir = tempfile::tempdir().unwrap();
        let (kind, bits) = kind.split_once('-').map_or((kind, "2048"), |(kind, bits)| (kind, bits));
        let (private, file) = key(dir.path(), &["-N", "", "-t", kind, "-b", bits]);
        let agent = SshAgent::start(dir.path(), &private, getpid()).unwrap();
        std::fs::remove_file(&file).unwrap();
        let public = file.with_extension("pub");
        let message = dir.path().join("message");
        std::fs::write(&message, "what is signed").unwrap();
        let mut signing = Command::new("ssh-keygen");
        signing.env("SSH_AUTH_SOCK", agent.socket()).args(["-q", "-Y", "sign", "-n", "test", "-f"]);
        assert!(signing.arg(&public).arg(&message).status().unwrap().success(), "{kind}-{bits}");
        let mut checking = Command::new("ssh-keygen");
        checking.args(["-q", "-Y", "check-novalidate", "-n", "test", "-s"]).arg(dir.path().join("message.sig"));
        let checked = checking.stdin(std::fs::File::open(&message).unwrap()).status();
        assert!(checked.unwrap().success(), "{kind}-{bits}");
        assert_eq!(std::fs::read_to_string(&public).unwrap().trim(), agent.public_half());
        agent.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_for_another_key_or_in_the_old_way_and_nothing_else_is_done() {
    const FAILURE: [u8; 1] = [5];
    let dir = tempfile::tempdir().unwrap();
    let (private, _) = key(dir.path(), &["-N", "", "-t", "rsa", "-b", "2048"]);
    let ours = PrivateKey::from_openssh(private.reveal()).unwrap();
    let agent = SshAgent::start(dir.path(), &private, getpid()).unwrap();
    assert_eq!(asked(&agent, &sign(&ours, b"data", RSA_SHA2_512))[0], 14);
    assert_eq!(asked(&agent, &sign(&ours, b"data", 0)), FAILURE);
    let below = dir.path().join("below");
    std::fs::create_dir(&below).unwrap();
    let (other, _) = key(&below, &["-N", "", "-t", "ed25519"]);
    let other = PrivateKey::from_openssh(other.reveal()).unwrap();
    assert_eq!(asked(&agent, &sign(&other, b"data", RSA_SHA2_512)), FAILURE);
    // Remove all, lock, an extension, nothing known, and an identity to be added that is none.
    for request in [&[19_u8][..], &[22, 0, 0, 0, 1, b'x'], &[27, 0, 0, 0, 1, b'x'], &[99], &[17, 0, 0]] {
        assert_eq!(asked(&agent, request), FAILURE, "{request:?}");
    }
    assert_eq!(asked(&agent, &sign(&ours, b"data", RSA_SHA2_512))[0], 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_bounded_and_the_end_ends_connections() {
    let dir = tempfile::tempdir().unwrap();
    let (private, _) = key(dir.path(), &["-N", "", "-t", "ed25519"]);
    let agent = SshAgent::start(dir.path(), &private, getpid()).unwrap();
    let socket = agent.socket().to_owned();
    let mut greedy = UnixStream::connect(&socket).unwrap();
    greedy.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    greedy.write_all(&(REQUEST_BYTES_MAX + 1).to_be_bytes()).unwrap();
    assert_eq!(greedy.read(&mut [0]).unwrap(), 0);
    // One more than may be is waited with, and answered when there is room.
    let idle: Vec<UnixStream> = (0..CONNECTIONS_MAX).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let mut waits = UnixStream::connect(&socket).unwrap();
    waits.write_all(&[0, 0, 0, 1, 11]).unwrap();
    waits.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(waits.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    waits.set_read_timeout(None).unwrap();
    let mut stays = idle.into_iter().next_back().unwrap();
    waits.read_exact(&mut [0; 4]).unwrap();
    agent.end().await;
    assert!(!socket.exists());
    assert_eq!(stays.read(&mut [0]).unwrap(), 0);
    assert!(UnixStream::connect(&socket).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_refused_with_a_reason_that_holds_nothing_of_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |dir: &Path, private: &Secret| SshAgent::start(dir, private, getpid()).err().unwrap().to_string();
    let (locked, _) = key(dir.path(), &["-N", "a passphrase", "-t", "ed25519"]);
    assert!(refused(dir.path(), &locked).contains("it has a passphrase"));
    assert!(refused(dir.path(), &Secret::new("no key".to_owned())).contains("can't be used"));
    std::fs::remove_file(dir.path().join("key")).unwrap();
    let (private, _) = key(dir.path(), &["-N", "", "-t", "ed25519"]);
    let long = dir.path().join("x".repeat(SOCKET_PATH_BYTES_MAX));
    assert!(refused(&long, &private).contains("give the worker a shorter data directory"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_another_attempt_is_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (private, _) = key(dir.path(), &["-N", "", "-t", "ed25519"]);
    // Neither this process nor what it starts next is below the keeper of that agent.
    let mut keeper = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let of = |id: u32| Pid::from_raw(i32::try_from(id).unwrap());
    let theirs = SshAgent::start(dir.path(), &private, of(keeper.id())).unwrap();
    let listed = |agent: &SshAgent| {
        let listing = Command::new("ssh-add").arg("-L").env("SSH_AUTH_SOCK", agent.socket()).output().unwrap();
        (listing.status.success(), String::from_utf8(listing.stdout).unwrap().trim().to_owned())
    };
    assert_eq!(listed(&theirs), (false, String::new()));
    let mut stranger = UnixStream::connect(theirs.socket()).unwrap();
    // It may be closed before the request is written.
    let _ = stranger.write_all(&[0, 0, 0, 1, 11]);
    assert!(matches!(stranger.read(&mut [0]), Ok(0) | Err(_)));
    let ours = SshAgent::start(dir.path(), &private, getpid()).unwrap();
    assert_eq!(listed(&ours), (true, ours.public_half().to_owned()));
    keeper.kill().unwrap();
    keeper.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_returns_when_connections_and_key_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (private, _) = key(dir.path(), &["-N", "", "-t", "ed25519"]);
    for _ in 0..50 {
        let identity = Arc::new(Identity::of(PrivateKey::from_openssh(private.reveal()).unwrap()).unwrap());
        let held = Arc::downgrade(&identity);
        let (stop, stopped) = oneshot::channel();
        let socket = dir.path().join("agent");
        let task = tokio::spawn(serve(UnixListener::bind(&socket).unwrap(), identity, getpid(), stopped));
        let agent = SshAgent { task, stop: Some(stop), socket, public: String::new() };
        let open: Vec<UnixStream> =
            (0..CONNECTIONS_MAX).map(|_| UnixStream::connect(agent.socket()).unwrap()).collect();
        assert_eq!(asked_of(&open[0]), 12);
        agent.end().await;
        assert_eq!(held.strong_count(), 0);
    }
}

/// What kind of answer a question for the identities has on that connection.
fn asked_of(mut stream: &UnixStream) -> u8 {
    stream.write_all(&[0, 0, 0, 1, 11]).unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    answer[4]
}
