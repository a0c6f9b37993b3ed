//! The ssh-agent: what comes over its socket, and the keys that it is started with.

use nix::unistd::getpid;
use shared::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use worker::fuzzed::SshAgent;

use super::campaign::{Bounds, campaign_of, share};
use super::secrets::{inside, outside, private_keys};

/// The longest request that is read has 256 KiB, and sixteen connections may be open.
const FRAME: Bounds = Bounds { largest: 256 * 1024, peak: 16, total: 32, fixed: 6 << 20 };

fn runtime() -> Runtime {
    // One thread, whose memory is counted.
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The requests that git's ssh makes, each with its length before it.
fn requests(public: &[u8]) -> Vec<Vec<u8>> {
    let text = |bytes: &[u8]| [&u32::try_from(bytes.len()).expect("a short one").to_be_bytes(), bytes].concat();
    let sign = [&[13][..], &text(public), &text(b"what is to be signed"), &4_u32.to_be_bytes()].concat();
    let add = [&[17][..], &text(b"ssh-ed25519"), &text(&[1; 32]), &text(&[2; 64]), &text(b"a comment")].concat();
    let extension = [&[27][..], &text(b"query")].concat();
    let constrained =
        [&[25][..], &text(b"ssh-ed25519"), &text(&[1; 32]), &text(&[2; 64]), &text(b""), &[1, 0, 0, 0, 9]].concat();
    [vec![11], sign, add, extension, constrained, vec![19]].iter().map(|request| text(request)).collect()
}

#[test]
fn any_bytes_at_the_agents_socket_are_answered_or_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = runtime();
    let key = private_keys().swap_remove(0);
    let agent = runtime.block_on(async { SshAgent::start(dir.path(), &Secret::new(key), getpid()) });
    let agent = agent.expect("it starts");
    let blob = agent.public_half().split(' ').nth(1).expect("a public key").to_owned();
    let public = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, blob).expect("base64");
    let ask = |bytes: &[u8]| {
        runtime.block_on(async {
            let mut stream = UnixStream::connect(agent.socket()).await.expect("it listens");
            // It may have hung up already.
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let mut answers = Vec::new();
            let _ = stream.read_to_end(&mut answers).await;
            answers
        })
    };
    let samples = requests(&public);
    assert_eq!(ask(&samples[0]).get(4), Some(&12), "its identities");
    assert_eq!(ask(&samples[1]).get(4), Some(&14), "a signature");
    let most = campaign_of("requests to the agent", share(1), FRAME, &samples, |bytes| drop(ask(bytes)));
    // The same inside of a frame whose length is right.
    let bodies: Vec<Vec<u8>> = samples.iter().map(|request| request[4..].to_vec()).collect();
    campaign_of("what is in a request to the agent", share(1), FRAME, &bodies, |bytes| {
        let length = u32::try_from(bytes.len()).expect("a short one").to_be_bytes();
        drop(ask(&[&length, bytes].concat()));
    });
    println!("requests to the agent: {most:?}");
    assert_eq!(ask(&samples[0]).get(4), Some(&12), "it still answers");
    runtime.block_on(agent.end());
}

#[test]
fn any_key_starts_an_agent_or_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = runtime();
    let bounds = Bounds { largest: 256 * 1024, peak: 64, total: 512, fixed: 8 << 20 };
    let start = |text: String| {
        runtime.block_on(async {
            if let Ok(agent) = SshAgent::start(dir.path(), &Secret::new(text), getpid()) {
                agent.end().await;
            }
        });
    };
    for (key, kind) in private_keys().iter().zip(["ed25519", "rsa", "p256", "p384"]) {
        let name = format!("an agent's key ({kind})");
        campaign_of(&name, share(2), bounds, &[inside(key)], |bytes| start(outside(bytes)));
    }
}
