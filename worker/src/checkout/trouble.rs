//! What git and ssh mean by what they say: whether it may pass, and what to tell whoever reads it.
//!
//! They are made to speak English (`LC_ALL=C`). What isn't known here is never tried again.

use std::time::Duration;

use shared::job::{Exit, Failure};
use shared::time::Period;

/// What went wrong, as far as it makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The network or the server: it may be over soon.
    Passing,
    /// The server's host key is another than the pinned one.
    HostKeyChanged,
    /// No host key of the server is pinned.
    HostKeyUnknown,
    /// The server doesn't take the deploy key, or there is none to take.
    KeyRefused,
    /// Over HTTPS the server wants to know who asks.
    CredentialsAsked,
    NoRepository,
    /// The server doesn't have the commit.
    NoCommit,
    /// The server may have the commit, but gives nothing by its id.
    RefusesIds,
    /// This host has no room for what comes.
    NoSpace,
    /// The mirror on this host can't be read.
    Broken,
    Other,
}

/// What went wrong, and the line that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub kind: Kind,
    pub reason: String,
}

/// By which words each kind is known, the most telling first: ssh's own words stand above what git concludes from them.
const WORDS: [(Kind, &[&str]); 11] = [
    (Kind::HostKeyChanged, &["has changed and you have requested strict checking", "Offending key for IP in"]),
    (
        Kind::HostKeyUnknown,
        &[
            "host key is known for",
            "REVOKED HOST KEY DETECTED",
            "Host key verification failed",
            "no matching host key type",
        ],
    ),
    (Kind::KeyRefused, &["Permission denied (", "Too many authentication failures"]),
    (Kind::NoSpace, &["No space left on device", "Disk quota exceeded", "unable to write"]),
    // What a mirror that can't be read makes git say; before the network, whose words git adds.
    (
        Kind::Broken,
        &[
            "bad object",
            "is corrupt",
            "error: object file ",
            "cannot be accessed",
            "file is too short",
            "does not match index",
            "inflate: data stream error",
            "failed to read object",
            "missing blob",
            "missing tree",
            "unable to read tree",
            "did not send all necessary objects",
            "bad config line",
            "not a git repository: ",
            "missing necessary objects",
        ],
    ),
    (
        Kind::Passing,
        &[
            "returned error: 5",
            "HTTP 5",
            "returned error: 429",
            "HTTP 429",
            "returned error: 408",
            "HTTP 408",
            "Could not resolve host",
            "Couldn't resolve host",
            "Temporary failure in name resolution",
            "Name or service not known",
            "Connection refused",
            "Connection timed out",
            "Connection reset",
            "Connection closed by",
            "closed by remote host",
            "No route to host",
            "Network is unreachable",
            "Network is down",
            "Host is down",
            "Broken pipe",
            "not responding",
            "Operation timed out",
            "Operation too slow",
            "Failed to connect",
            "Couldn't connect to server",
            "Recv failure",
            "Send failure",
            "Empty reply from server",
            "SSL_ERROR_SYSCALL",
            "gnutls_handshake() failed: The TLS connection was non-properly terminated",
            "recv error",
            "transfer closed",
            "kex_exchange_identification",
        ],
    ),
    (
        Kind::CredentialsAsked,
        &[
            "could not read Username",
            "could not read Password",
            "Authentication failed",
            "terminal prompts disabled",
            "returned error: 401",
            "returned error: 403",
        ],
    ),
    (
        Kind::NoRepository,
        &[
            "epository not found",
            "' not found",
            "returned error: 404",
            "does not appear to be a git repository",
            "could not be found",
        ],
    ),
    (Kind::RefusesIds, &["does not allow request for unadvertised object"]),
    (Kind::NoCommit, &["not our ref", "couldn't find remote ref"]),
    // A connection that was cut, where nothing above says why.
    (
        Kind::Passing,
        &[
            "hung up unexpectedly",
            "early EOF",
            "unexpected disconnect",
            "died of signal",
            "invalid index-pack output",
            "bad pack header",
            "expected flush after",
        ],
    ),
];

/// What `said`, git's standard error, and the way git ended mean.
pub fn of(said: &str, exit: Exit) -> Trouble {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    for (kind, words) in WORDS {
        if let Some(line) = lines().find(|line| words.iter().any(|word| line.contains(word))) {
            return Trouble { kind, reason: plain(line) };
        }
    }
    // Whoever killed git didn't mean the repository.
    let kind = if matches!(exit, Exit::Signal(_)) { Kind::Passing } else { Kind::Other };
    Trouble { kind, reason: reason(said, exit) }
}

/// What a git came to that was killed at its limit.
pub fn overdue(limit: Duration) -> Trouble {
    let limit = Period::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    Trouble { kind: Kind::Passing, reason: format!("git wasn't done within {limit}, and was stopped") }
}

/// The line in which git names the submodule that it failed at.
pub fn submodule(said: &str) -> Option<String> {
    let names = |line: &&str| line.contains("submodule path '") && !line.contains("registered for path");
    said.lines().map(str::trim).find(names).map(plain)
}

/// The one line of git's words that says the most.
pub fn reason(said: &str, exit: Exit) -> String {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let marked = |line: &&str| ["fatal: ", "error: ", "ERROR: "].iter().any(|mark| line.starts_with(mark));
    lines().find(marked).or(lines().next()).map_or_else(|| format!("git ended with {exit}"), plain)
}

/// A line without the marks that git and servers put before it, and without a password that a URL in it may hold.
fn plain(line: &str) -> String {
    let mut rest = line;
    for mark in ["remote: ", "fatal: ", "error: ", "ERROR: ", "ssh: "] {
        rest = rest.strip_prefix(mark).unwrap_or(rest);
    }
    without_passwords(rest.trim_end_matches('\r'))
}

/// `text` with every password before a URL's host left out.
pub fn without_passwords(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        all.push_str(before);
        all.push_str("://");
        let end = after.find(|c: char| c.is_whitespace() || "/?#'\"".contains(c)).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                all.push_str(user.split(':').next().unwrap_or_default());
                all.push('@');
                all.push_str(host);
            }
            None => all.push_str(authority),
        }
        rest = tail;
    }
    all + rest
}

/// What was asked for, as people are told of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub url: &'a str,
    /// The name of the deploy key that is used.
    pub key: Option<&'a str>,
    /// What the ref or the commit is called.
    pub reference: &'a str,
    /// It went wrong with a submodule rather than with the repository itself.
    pub submodule: bool,
}

impl Trouble {
    /// The same, with the line that names the submodule.
    pub fn of_submodule(self, named: Option<&str>) -> Self {
        match named {
            Some(named) if named != self.reason => Self { reason: format!("{named}: {}", self.reason), ..self },
            _ => self,
        }
    }

    /// The failure that it ends the attempt with.
    pub fn failure(&self, asked: Asked) -> Failure {
        let Asked { url, key, reference, submodule } = asked;
        let reason = &self.reason;
        let key = key.unwrap_or("(none)");
        let of = if submodule { format!("a submodule of {url}") } else { url.to_owned() };
        let message = match self.kind {
            Kind::KeyRefused => {
                let message = format!(
                    "the server of {of} refused deploy key {key} ({reason}): compare it with `windlass key show {key}` \
                     and what the host has"
                );
                return Failure::DeployKeyDenied { message };
            }
            Kind::HostKeyChanged => format!(
                "the host key of {of} isn't the one pinned with deploy key {key} ({reason}): `windlass key rotate \
                 {key} --known-hosts F` pins the new one if it was changed on purpose; if not, somebody may stand between"
            ),
            Kind::HostKeyUnknown => format!(
                "the known hosts pinned with deploy key {key} don't vouch for {of} ({reason}): `windlass key rotate \
                 {key} --known-hosts F` pins the server's host key"
            ),
            Kind::Passing => format!("{of} can't be reached: {reason}"),
            Kind::NoSpace => format!("this worker can't store {of}: {reason}"),
            _ if submodule => format!("{of} can't be checked out: {reason}"),
            Kind::Broken => format!("the mirror of {url} on this worker is broken, and so was a new one: {reason}"),
            Kind::CredentialsAsked => format!("{url} asks for credentials, and there are none for HTTPS: {reason}"),
            Kind::NoRepository => format!("repository {url} not found, or not for us: {reason}"),
            Kind::NoCommit | Kind::RefusesIds => format!("ref {reference} not found in {url}: {reason}"),
            Kind::Other => format!("git could not fetch {url}: {reason}"),
        };
        let transient = match self.kind {
            // Of room another worker may have more.
            Kind::Passing | Kind::NoSpace => true,
            Kind::Broken => !submodule,
            _ => false,
        };
        Failure::CheckoutFailed { transient, message }
    }
}

#[cfg(test)]
mod tests;
