//! What counts as host keys: the lines of a `known_hosts` file, as ssh reads them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The most bytes of host keys: 64 KiB.
pub const KNOWN_HOSTS_BYTES_MAX: usize = 64 * 1024;
/// What a line may begin with to say that its key is a certificate authority's, or must not be believed.
const MARKERS: [&str; 2] = ["@cert-authority", "@revoked"];

/// Why `text` holds no host keys to go by, if it doesn't: the first line that is wrong, with the remedy.
pub fn fault(text: &str) -> Option<String> {
    if text.len() > KNOWN_HOSTS_BYTES_MAX {
        return Some(format!("must have at most {KNOWN_HOSTS_BYTES_MAX} bytes, not {}", text.len()));
    }
    if text.contains('\0') {
        return Some("must not contain NUL".to_owned());
    }
    let mut believed = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match entry(line) {
            Ok(revoked) => believed |= !revoked,
            Err(why) => return Some(format!("line {number} {why}")),
        }
    }
    let none = "holds no host key: get one with `ssh-keyscan HOST`, and compare its fingerprint with what the host's owner publishes";
    (!believed).then(|| none.to_owned())
}

/// Whether an entry's key is revoked.
fn entry(line: &str) -> Result<bool, &'static str> {
    let mut words = line.split_ascii_whitespace();
    let mut hosts = words.next().unwrap_or_default();
    let mut revoked = false;
    if hosts.starts_with('@') {
        if !MARKERS.contains(&hosts) {
            return Err("begins with a marker that ssh doesn't know: it must be @cert-authority or @revoked");
        }
        revoked = hosts == "@revoked";
        hosts = words.next().unwrap_or_default();
    }
    let (Some(kind), Some(key)) = (words.next(), words.next()) else {
        return Err("must be hosts, the kind of the key, and the key, as in ~/.ssh/known_hosts");
    };
    if hosts.split(',').any(str::is_empty) {
        return Err("has an empty host among its hosts");
    }
    let blob = STANDARD.decode(key).map_err(|_| "holds a key that is not base64")?;
    match named(&blob) {
        Some((name, rest)) if name == kind.as_bytes() && !rest.is_empty() => Ok(revoked),
        _ => Err("holds a key that isn't of the kind that stands before it"),
    }
}

/// The name that a key begins with, and what follows it.
fn named(blob: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    #[test]
    fn lines_as_ssh_writes_them_are_taken() {
        for text in [
            format!("git.example.org {KEY}"),
            format!("# a comment\n\n  git.example.org,10.0.0.7 {KEY} a comment\r\n"),
            format!("[git.example.org]:2222 {KEY}\n@revoked other {KEY}"),
            format!("|1|c2FsdA==|aGFzaA== {KEY}"),
            format!("@cert-authority *.example.org {KEY}"),
        ] {
            assert_eq!(fault(&text), None, "{text}");
        }
    }

    #[test]
    fn what_ssh_would_pass_over_is_named_by_its_line() {
        let good = format!("git.example.org {KEY}");
        for (text, expected) in [
            (String::new(), "holds no host key"),
            ("# nothing".to_owned(), "holds no host key"),
            (format!("@revoked git.example.org {KEY}"), "holds no host key"),
            (KEY.to_owned(), "line 1 must be hosts"),
            (format!("{good}\n@trusted git.example.org {KEY}"), "line 2 begins with a marker"),
            (format!("{good}\n\ngit.example.org ssh-ed25519 !!!!"), "line 3 holds a key that is not base64"),
            (good.replace("ssh-ed25519", "ssh-rsa"), "line 1 holds a key that isn't of the kind"),
            (good.replacen("git", ",git", 1), "line 1 has an empty host"),
            (format!("{good}\0"), "must not contain NUL"),
            (format!("#{}\n{good}", "x".repeat(KNOWN_HOSTS_BYTES_MAX)), "must have at most 65536 bytes"),
        ] {
            let fault = fault(&text).unwrap();
            assert!(fault.starts_with(expected), "{text:.80}: {fault}");
        }
    }
}
