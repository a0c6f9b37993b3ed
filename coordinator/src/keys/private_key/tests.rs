//! What ssh-keygen makes, as it is taken and refused.

use std::path::Path;
use std::process::Command;

use super::*;

/// A private key made by ssh-keygen.
fn made(dir: &Path, args: &[&str]) -> Secret {
    let file = dir.join("key");
    let _ = std::fs::remove_file(&file);
    let status =
        Command::new("ssh-keygen").args(["-q", "-C", "somebody", "-f"]).arg(&file).args(args).status().unwrap();
    assert!(status.success(), "{args:?}");
    Secret::new(std::fs::read_to_string(file).unwrap())
}

/// What ssh-keygen shows of a private key: its bits, fingerprint and comment.
fn shown(dir: &Path, private_key: &Secret) -> String {
    use std::os::unix::fs::OpenOptionsExt;
    let file = dir.join("stored");
    let mut open = std::fs::OpenOptions::new();
    let mut stored = open.create(true).truncate(true).write(true).mode(0o600).open(&file).unwrap();
    std::io::Write::write_all(&mut stored, private_key.reveal().as_bytes()).unwrap();
    let output = Command::new("ssh-keygen").arg("-l").arg("-f").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_ssh_keygen_makes_is_taken_and_ssh_can_use_what_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    for (args, algorithm) in [
        (&["-N", "", "-t", "ed25519"][..], "ssh-ed25519"),
        (&["-N", "", "-t", "rsa", "-b", "2048"], "ssh-rsa"),
        (&["-N", "", "-t", "ecdsa", "-b", "256"], "ecdsa-sha2-nistp256"),
        (&["-N", "", "-t", "ecdsa", "-b", "384"], "ecdsa-sha2-nistp384"),
    ] {
        let text = made(dir.path(), args);
        let pair = Pair::read(&Secret::new(format!("\r\n{}\n\n", text.reveal().trim())), "app").unwrap();
        assert_eq!(pair.algorithm, algorithm);
        assert!(pair.public_key.starts_with(algorithm) && pair.public_key.ends_with(" windlass:app"), "{args:?}");
        let shown = shown(dir.path(), &pair.private_key);
        assert!(shown.contains(&pair.fingerprint) && shown.contains("windlass:app"), "{shown}");
        let expected = std::fs::read_to_string(dir.path().join("key.pub")).unwrap();
        assert_eq!(pair.public_key.split(' ').nth(1), expected.split(' ').nth(1), "{args:?}");
    }
}

/// Two keys whose scalars begin with a byte of zeros, which OpenSSH leaves out. They were made for this, and open nothing.
const SHORT: [(&str, &str); 2] = [
    (
        "SHA256:wt9B80Vox7REuxZRZzzRWIcuTnT92v1OLybHZfSUdhI",
        "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQSQ\
         kSrcOoXtXwrTRBG2xaKLjU3vDPOeauQo45xLCXOQT2IwjQwZkY4aZQ4vbwkS4r1zseGoGb51L0fSS8pXy69IAAAAoO53OXHudzlxAAAAE2VjZHNh\
         LXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBJCRKtw6he1fCtNEEbbFoouNTe8M855q5CjjnEsJc5BPYjCNDBmRjhplDi9vCRLivXOx4agZ\
         vnUvR9JLylfLr0gAAAAfUARfpLBwlYX4kImSfhOjubJB24bhA1mi8+DnSl+YZAAAAAhzb21lYm9keQE=",
    ),
    (
        "SHA256:twOewpqAGDEhcy7v6TFNzYKuoO9itoyfVvddZY6ptzs",
        "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAiAAAABNlY2RzYS1zaGEyLW5pc3RwMzg0AAAACG5pc3RwMzg0AAAAYQS8\
         oyaHHyb41LNwrCt5fctd+eiXNVSdOeKTh7RB98KVbO4+LRWP5duKqjkAM0sE+iuDqc5rKm/CHx9fAXfM4Uexxf98jDvbRtRuINSzsEy09oLXh1OE\
         bTDy9DOFlkhJy68AAADQzTOY080zmNMAAAATZWNkc2Etc2hhMi1uaXN0cDM4NAAAAAhuaXN0cDM4NAAAAGEEvKMmhx8m+NSzcKwreX3LXfnolzVU\
         nTnik4e0QffClWzuPi0Vj+Xbiqo5ADNLBPorg6nOaypvwh8fXwF3zOFHscX/fIw720bUbiDUs7BMtPaC14dThG0w8vQzhZZIScuvAAAALyLKj+Kv\
         iKjedMU8+iyw5XpZsD/Wn8/cZKJS49Ko8aAe0Y+whcjmIj0iukEcNN/jAAAACHNvbWVib2R5AQ==",
    ),
];

#[test]
fn a_key_whose_scalar_is_shorter_than_its_curve_is_taken_too() {
    let dir = tempfile::tempdir().unwrap();
    for (fingerprint, body) in SHORT {
        let text = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n");
        let pair = Pair::read(&Secret::new(text), "app").unwrap();
        assert_eq!(pair.fingerprint, fingerprint);
        // What is stored is read back by whoever hands it to an agent, and ssh can use it.
        let again = Pair::read(&pair.private_key, "app").unwrap();
        assert_eq!((again.fingerprint.as_str(), &again.public_key), (fingerprint, &pair.public_key));
        assert!(shown(dir.path(), &pair.private_key).contains(fingerprint));
        let derived = Command::new("ssh-keygen").arg("-y").arg("-f").arg(dir.path().join("stored")).output().unwrap();
        let derived = String::from_utf8(derived.stdout).unwrap();
        assert_eq!(derived.split(' ').nth(1), pair.public_key.split(' ').nth(1));
    }
}

#[test]
fn a_pair_that_is_made_here_is_one_that_ssh_can_use() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (Pair::generate("app").unwrap(), Pair::generate("app").unwrap());
    assert_eq!(one.algorithm, "ssh-ed25519");
    assert_ne!(one.fingerprint, other.fingerprint);
    assert!(shown(dir.path(), &one.private_key).contains(&one.fingerprint));
}

#[test]
fn what_cannot_be_used_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let text = |args: &[&str]| made(dir.path(), args);
    let good = text(&["-N", "", "-t", "ed25519"]);
    let damaged: Vec<&str> = good.reveal().lines().enumerate().filter(|(n, _)| *n != 2).map(|(_, line)| line).collect();
    for (text, expected) in [
        (text(&["-N", "hunter2", "-t", "ed25519"]), "ssh-keygen -p -N '' -f FILE"),
        (text(&["-N", "", "-t", "rsa", "-b", "2048", "-m", "PEM"]), "is in PEM: bring a copy"),
        (text(&["-N", "", "-t", "rsa", "-b", "2048", "-m", "PKCS8"]), "make an OpenSSH key: `ssh-keygen -t ed25519"),
        (text(&["-N", "", "-t", "rsa", "-b", "1024"]), "RSA key of 1024 bits: it must have 2048"),
        (text(&["-N", "", "-t", "ecdsa", "-b", "521"]), "it must be ed25519, rsa, or ecdsa"),
        (Secret::new(std::fs::read_to_string(dir.path().join("key.pub")).unwrap()), "is a public key"),
        (Secret::new(damaged.join("\n")), "is damaged"),
        (Secret::new("PuTTY-User-Key-File-3: ssh-ed25519\n".to_owned()), "puttygen"),
        (Secret::new("hunter2".to_owned()), "is not a private key in OpenSSH's format"),
        (Secret::new(String::new()), "is not a private key"),
        (Secret::new("x".repeat(PRIVATE_KEY_BYTES_MAX + 1)), "must have at most 16384 bytes"),
    ] {
        let refused = Pair::read(&text, "app").err().unwrap();
        assert!(refused.contains(expected), "{expected}: {refused}");
        assert!(!refused.contains("hunter2"));
    }
}
